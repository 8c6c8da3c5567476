local tide = require "tide"
local nn, optim = tide.nn, tide.optim

local function resident()
  for line in io.lines "/proc/self/status" do
    local kb = line:match "^VmRSS:%s+(%d+)"
    if kb then return tonumber(kb) end
  end
end

--- A step of training: classes from what net(x) gives.
local function trainer(net, x, classes, make_optimizer)
  local criterion, optimizer = nn.CrossEntropyLoss(), make_optimizer(net:parameters())
  local n = net(x):reshape({-1, classes}):size(1)
  local y = tide.randint(1, classes + 1, {n})
  return function()
    optimizer:zero_grad()
    local loss = criterion(net(x):reshape {-1, classes}, y)
    loss:backward()
    optimizer:step()
    return loss
  end
end

local function adam(p) return optim.Adam(p, {lr = 1e-3}) end
local function momentum(p) return optim.SGD(p, {lr = 1e-3, momentum = 0.9}) end

--- The output sequence of a recurrent layer, without its states.
local function outputs(layer, head)
  local Net = nn.Module:extend "Outputs"
  function Net:init() self.layer, self.head = layer, head end
  function Net:forward(x) return self.head((self.layer(x))) end
  return Net()
end

local function attention()
  local Net = nn.Module:extend "Attention"
  function Net:init() self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 5) end
  function Net:forward(x)
    local b, t = x:size(1), x:size(2)
    local qkv = self.qkv(self.norm(x))
    local function part(i) return qkv:narrow(3, 16 * i + 1, 16):reshape({b, t, 2, 8}):transpose(2, 3) end
    local y = tide.scaled_dot_product_attention(part(0), part(1), part(2), {is_causal = true})
    return self.out(y:transpose(2, 3):reshape({b, t, 16}):gelu())
  end
  return Net()
end

local trainings = {
  ["a perceptron with dropout"] = function()
    local net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
    return trainer(net, tide.randn(256, 64), 10, adam)
  end,
  ["a convolutional network"] = function()
    local net = nn.Sequential(nn.Conv2d(3, 8, 3, {padding = 1, bias = false}), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
                              nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return trainer(net, tide.randn(4, 3, 12, 12), 4, momentum)
  end,
  ["an LSTM"] = function()
    return trainer(outputs(nn.LSTM(8, 16, {batch_first = true}), nn.Linear(16, 6)), tide.randn(4, 10, 8), 6, adam)
  end,
  ["a GRU"] = function()
    return trainer(outputs(nn.GRU(8, 16, {batch_first = true}), nn.Linear(16, 6)), tide.randn(4, 10, 8), 6, adam)
  end,
  ["attention"] = function() return trainer(attention(), tide.randn(3, 12, 16), 5, adam) end,
}

describe("memory of a training loop", function()
  if sanitized then return pending "sanitizers do not reuse memory" end

  local names = {}
  for name in pairs(trainings) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    for how, wrap in pairs {eager = function(step) return step end, captured = tide.capture} do
      it(("a thousand warm steps of %s, %s, neither ask the backend for memory nor grow the process"):format(name, how), function()
        tide.manual_seed(1)
        local step = wrap(trainings[name]())
        local function run(n, every)                     -- a replay makes so little garbage that Lua would not collect its losses
          for i = 1, n do
            step()
            if i % every == 0 then collectgarbage() end
          end
        end
        collectgarbage "stop"                            -- warm: with more garbage at a time than the collector ever leaves
        run(300, 150)
        collectgarbage "restart"
        run(100, 100)
        local allocs, rss = tide.memory("cpu").allocs, resident()
        run(1000, 100)
        assert.equal(allocs, tide.memory("cpu").allocs)
        assert.is_true(resident() - rss < 2048, ("grew by %d KiB"):format(resident() - rss))
      end)
    end
  end

  it("backward gives sums of gradients up as it goes", function()
    local w = tide.ones(512, 512):requires_grad_()
    local h = w * 1
    for _ = 1, 40 do h = h + h:sin() end -- two gradients meet at each h
    collectgarbage(); collectgarbage()
    local before = tide.memory("cpu").current
    tide.reset_peak_memory()
    h:sum():backward()
    local mib = (tide.memory("cpu").peak - before) / 2 ^ 20
    assert.is_true(mib < 8, ("took %.1f MiB beyond what forward held"):format(mib))
  end)

  it("goes back when tensors are freed", function()
    collectgarbage(); collectgarbage()
    local before = tide.memory("cpu").current
    local x = tide.zeros(1000, 1000)
    assert.is_true(tide.memory("cpu").current >= before + 4000000)
    x:free()
    assert.is_true(tide.memory("cpu").current <= before + 1000)
    do local _ <close> = tide.zeros(1000, 1000) end
    assert.is_true(tide.memory("cpu").current <= before + 1000)
  end)

  it("stays flat where only the collector frees", function()
    local peak = 0
    for _ = 1, 2000 do
      local _ = tide.zeros(256, 1024)
      peak = math.max(peak, tide.memory("cpu").current)
    end
    assert.is_true(peak < 512 * 2 ^ 20, ("peak %d MiB"):format(peak // 2 ^ 20))
  end)
end)

describe("a request that cannot be met", function()
  it("is one error with sizes, and the process lives on", function()
    fails_with(function() return tide.zeros(1 << 20, 1 << 20) end, "out of memory", "asked for")
    fails_with(function() return tide.zeros(1 << 40, 1 << 40) end, "zeros")
    fails_with(function() return tide.zeros(-1, 2) end, "-1")
    assert_close({0, 0}, tide.zeros(2))
  end)
end)
