-- Ctrl-C: an error that the script may catch, after which everything works on; a second one before that ends the process.
-- The scripts send themselves the signal, so nothing here depends on time.
local prelude = [[
  local tide = require "tide"
  local function ctrl_c() io.popen("kill -INT $PPID"):close() end
]]
local function run(code)
  local output, status = tide_process(prelude .. code)
  return output, status
end

describe("Ctrl-C", function()
  it("is an error at a line of the script, and the script goes on", function()
    local output, status = run [[
      print(pcall(function()
        ctrl_c()
        while true do end
      end))
      print(tide.ones(2):sum():item())
    ]]
    assert.equal(0, status, output)
    assert.matches("^false\t[^\n]*:%d+: interrupted\n2.0\n$", output)
  end)

  it("ends a loop of ops, of steps of training and of batches", function()
    local output, status = run [[
      local x = tide.ones(3)
      print(pcall(function() ctrl_c() while true do x = x + 1 end end))
      local net = tide.nn.Sequential(tide.nn.Linear(3, 4), tide.nn.Tanh(), tide.nn.Linear(4, 1))
      local sgd = tide.optim.SGD(net:parameters(), {lr = 0.01})
      print(pcall(function()
        ctrl_c()
        while true do
          sgd:zero_grad()
          net(tide.ones(1, 3)):sum():backward()
          sgd:step()
        end
      end))
      local loader = tide.data.Loader(tide.data.TensorDataset(tide.ones(100, 3)), {batch = 2, shuffle = true})
      print(pcall(function() ctrl_c() while true do for _ in loader:epoch() do end end end))
      local n = 0
      for _ in loader:epoch() do n = n + 1 end
      print(n, net(tide.ones(1, 3)):isfinite():all():item())
    ]]
    assert.equal(0, status, output)
    assert.matches("^" .. ("false\t[^\n]*interrupted\n"):rep(3) .. "50\ttrue\n$", output)
  end)

  it("in a coroutine is caught there, as often as it comes", function()
    local output, status = run [[
      local x = tide.ones(3)
      coroutine.wrap(function()
        for _ = 1, 3 do print(pcall(function() ctrl_c() while true do x = x + 1 end end)) end
      end)()
      print(pcall(function() ctrl_c() while true do end end))
      print "on"
    ]]
    assert.equal(0, status, output)
    assert.matches("^" .. ("false\t[^\n]*interrupted\n"):rep(4) .. "on\n$", output)
  end)

  it("that nobody catches ends the script with its line", function()
    local output, status = run [[
      ctrl_c()
      while true do end
    ]]
    assert.equal(1, status)
    assert.matches(":%d+: interrupted\n", output)
  end)

  it("a second time, before the first was seen, ends the process with status 130", function()
    local output, status = run [[io.popen("sleep 0.3; kill -INT $PPID; sleep 0.3; kill -INT $PPID"):close() print "not reached"]]
    assert.equal(130, status, output)
    assert.equal("", output)
  end)
end)
