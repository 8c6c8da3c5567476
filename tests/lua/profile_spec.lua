local tide = require "tide"
local core = require "tide.core"
local nn = tide.nn

local function row(report, op, backward)
  for _, r in ipairs(report) do
    if r.op == op and r.backward == (backward or false) then return r end
  end
end

describe("profile", function()
  local a, b = tide.ones(20, 30), tide.ones(30, 40)

  it("counts the calls of each op", function()
    local report = tide.profile(function() return a:matmul(b) + 1 end, {times = 3})
    assert.equal(3, row(report, "matmul").calls)
    assert.equal(3, row(report, "add").calls)
    assert.is_nil(row(report, "matmul", true))
  end)

  it("knows the bytes and the flops of a matrix product", function()
    local r = row(tide.profile(function() return a:matmul(b) end), "matmul")
    assert.equal(4 * (20 * 30 + 30 * 40 + 20 * 40), r.bytes)
    assert.equal(2 * 20 * 30 * 40, r.flops)
  end)

  it("knows the flops of convolutions, forward and backward", function()
    local x, w = tide.ones(2, 3, 8, 8):requires_grad_(), tide.ones(5, 3, 3, 3):requires_grad_()
    local report = tide.profile(function() tide.conv2d(x, w, nil, {padding = 1}):sum():backward() end)
    local flops = 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    local forward, backward = 0, 0
    for _, r in ipairs(report) do
      if r.flops > 1000 and not r.op:match "add" then
        if r.backward then backward = backward + r.flops else forward = forward + r.flops end
      end
    end
    assert.equal(flops, forward)
    assert.equal(2 * flops, backward)
  end)

  it("knows the flops of recurrent layers, attention and linear layers", function()
    local function flops(f, op, backward) return row(tide.profile(f, {warmup = 1}), op, backward).flops end
    local lstm, x = nn.LSTM(5, 7), tide.ones(3, 2, 5)
    local function train() lstm(x):sum():backward() end
    assert.equal(2 * 3 * 2 * 4 * 7 * (5 + 7), flops(train, "lstm"))
    assert.equal(2 * 3 * 2 * 4 * 7 * (5 + 2 * 7), flops(train, "lstm_backward", true))   -- x wants no gradient
    local q = tide.ones(2, 3, 10, 4):requires_grad_()
    local function attend() tide.scaled_dot_product_attention(q, q, q, {is_causal = true}):sum():backward() end
    assert.equal(2 * 2 * 3 * 10 * 10 * (4 + 4) / 2, flops(attend, "scaled_dot_product_attention"))
    assert.equal(2.5 * 2 * 2 * 3 * 10 * 10 * (4 + 4) / 2, flops(attend, "scaled_dot_product_attention_backward", true))
    local linear, z = nn.Linear(6, 9), tide.ones(4, 6):requires_grad_()
    local report = tide.profile(function() linear(z):sum():backward() end)
    local forward, backward = 0, 0
    for _, r in ipairs(report) do
      if r.op:match "linear" or r.op == "matmul" then
        if r.backward then backward = backward + r.flops else forward = forward + r.flops end
      end
    end
    assert.equal(2 * 4 * 6 * 9, forward)
    assert.equal(2 * forward, backward)
  end)

  it("tells forward from backward in a captured step, too", function()
    local net, x = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)), tide.ones(4, 8)
    local step = tide.capture(function()
      net:zero_grad()
      local loss = net(x):square():mean()
      loss:backward()
      return loss
    end)
    for _ = 1, 4 do step() end
    assert.equal("", step:stats().why)
    local forward, backward = 0, 0
    for _, r in ipairs(tide.profile(step)) do
      if r.backward then backward = backward + r.calls else forward = forward + r.calls end
    end
    assert.is_true(forward > 0 and backward > 0)
  end)

  it("tells forward ops from backward ones, and both from the tape", function()
    local x = tide.ones(4, 4):requires_grad_()
    local report = tide.profile(function() (x * x):sum():backward() end)
    assert.equal(1, row(report, "mul").calls)
    assert.is_true(row(report, "mul", true).calls >= 1)
    assert.equal(1, row(report, "(the tape)", true).calls)
  end)

  it("splits the whole into kernels, core and outside", function()
    local net = nn.Linear(8, 8)
    local report = tide.profile(function() net(tide.ones(2, 8)) end, {times = 5, warmup = 1})
    local own = 0
    for _, r in ipairs(report) do
      own = own + r.time
      assert.is_true(r.kernel <= r.time + 1e-9)
    end
    assert.near(report.total, own + report.outside, 1e-6)
    assert.near(report.total, report.kernels + report.core + report.outside, 1e-9)
    assert.is_true(report.outside > 0)
  end)

  it("sorts by time and shows a table with totals", function()
    local report = tide.profile(function() return a:matmul(b):relu():sum() end, {times = 2})
    for i = 2, #report do assert.is_true(report[i - 1].time >= report[i].time) end
    local text = tostring(report)
    for _, word in ipairs {"GFLOP/s", "matmul", "relu", "in kernels", "in the core", "outside ops", "total"} do
      assert.truthy(text:find(word, 1, true), word)
    end
  end)

  it("writes a trace that Chrome reads", function()
    local path = os.tmpname()
    local x = tide.ones(4, 4):requires_grad_()
    tide.profile(function() (x * x):sum():backward() end, {trace = path})
    local f = assert(io.open(path))
    local trace = tide.json.decode(f:read "a")
    f:close()
    os.remove(path)
    local names, ends = {}, 0
    for _, e in ipairs(trace.traceEvents) do
      names[e.name] = e
      assert.equal("X", e.ph)
      assert.is_true(e.ts >= 0 and e.dur >= 0)
      ends = math.max(ends, e.ts + e.dur)
    end
    assert.near(trace.traceEvents[1].dur, ends, 1)
    assert.equal("4,4", names["mul kernel"].args.shape)
    assert.equal("backward", names["(the tape)"].cat)
  end)

  it("ends when f fails, with its error unchanged", function()
    local object = {}
    local ok, e = pcall(tide.profile, function() error(object) end)
    assert.is_false(ok)
    assert.equal(object, e)
    assert.equal(1, #tide.profile(function() return a + 1 end))
  end)

  it("counts an op that fails", function()
    local report = tide.profile(function() pcall(tide.matmul, a, a) end)
    assert.equal(1, row(report, "matmul").calls)
    assert.equal(0, row(report, "matmul").bytes)
  end)

  it("refuses what does not fit", function()
    fails_with(function() tide.profile(3) end, "profile: f: expected a function, got 3")
    fails_with(function() tide.profile(print, {times = 0}) end, "times", "an integer >= 1")
    fails_with(function() tide.profile(function() end, {trace = "/no/such/dir/x.json"}) end, "profile: /no/such/dir/x.json: No such file")
    fails_with(function() tide.profile(function() tide.profile(function() end) end) end, "one is being taken already")
    fails_with(core.profile_stop, "none is being taken")
  end)
end)
