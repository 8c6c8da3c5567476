-- The overlay plugin backend_cpu_onednn: convolutions by oneDNN, where it was built.
local tide = require "tide"

local found = false
for _, p in ipairs(tide.plugins()) do found = found or p.name == "backend_cpu_onednn" end

--- Run in a process of its own, for the environment is read there: a convolution that oneDNN is taken for.
local code = [[
  local tide = require "tide"
  tide.manual_seed(3)
  local x, w, g = tide.randn(2, 256, 14, 14), tide.randn(512, 256, 1, 1), tide.randn(2, 512, 7, 7)
  local o = {stride = 2}
  local y = tide.conv2d(x, w, nil, o)
  local gx = tide.conv_transpose2d(g, w, nil, {stride = 2, output_padding = 1})
  local gw = tide.conv2d_weight_grad(x, g, {kernel = 1, stride = 2})
  print("sum " .. (y:to "f64":square():sum() + gx:to "f64":square():sum() + gw:to "f64":square():sum()):item())
]]

local function sum(environment)
  local output, status = tide_process(code, no_leak_check .. (environment or ""))
  assert(status == 0, output)
  return output:match "sum (%S+)", output
end

describe("the overlay with oneDNN", function()
  if not found then return pending "it was not built: no oneDNN 2 here" end

  it("is taken for kernels of 1x1 with many weights, and gives the same bits again", function()
    local forced, by_itself, left_out = sum "TIDE_ONEDNN=1", sum(), sum "TIDE_ONEDNN=0"
    assert.equal(forced, by_itself)
    assert.equal(by_itself, (sum()))
    assert.not_equal(left_out, by_itself)
    assert.near(1, tonumber(left_out) / tonumber(by_itself), 1e-5)
  end)
  it("obeys the number of threads", function()
    local counting = [[
      local tide = require "tide"
      local function threads()
        for line in io.lines "/proc/self/status" do
          local n = line:match "^Threads:%s*(%d+)"
          if n then return tonumber(n) end
        end
      end
      tide.set_num_threads(1)
      local g, w = tide.randn(8, 32, 16, 16), tide.randn(32, 16, 3, 3)
      for _ = 1, 3 do tide.conv_transpose2d(g, w, nil, {stride = 2, padding = 1, output_padding = 1}) end
      print(threads())
      tide.set_num_threads(3)
      for _ = 1, 3 do tide.conv_transpose2d(g, w, nil, {stride = 2, padding = 1, output_padding = 1}) end
      print(threads())
    ]]
    local output = tide_process(counting, no_leak_check .. "TIDE_ONEDNN=1")
    assert.equal("1\n3\n", output)
  end)
  it("is done without, after one line that says so, when its library is missing", function()
    local with, output = sum "TIDE_ONEDNN=/nowhere/libdnnl.so"
    assert.equal(sum "TIDE_ONEDNN=0", with)
    local _, lines = output:gsub("convolutions go without oneDNN", "")
    assert.equal(1, lines)
    assert.truthy(output:find("/nowhere/libdnnl.so", 1, true))
  end)
end)
