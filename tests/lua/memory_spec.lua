local tide = require "tide"
local nn, optim = tide.nn, tide.optim

local function resident()
  for line in io.lines "/proc/self/status" do
    local kb = line:match "^VmRSS:%s+(%d+)"
    if kb then return tonumber(kb) end
  end
end

local function training()
  tide.manual_seed(1)
  local net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
  local x, y = tide.randn(256, 64), tide.randint(1, 11, {256})
  local criterion, adam = nn.CrossEntropyLoss(), optim.Adam(net:parameters(), {lr = 1e-3})
  return function()
    adam:zero_grad()
    local loss = criterion(net(x), y)
    loss:backward()
    adam:step()
    return loss
  end
end

describe("memory of a training loop", function()
  if sanitized then return pending "sanitizers do not reuse memory" end

  it("a thousand warm steps neither ask the backend for memory nor grow the process", function()
    local step = training()
    for _ = 1, 300 do step() end
    local allocs, rss = tide.memory("cpu").allocs, resident()
    for _ = 1, 1000 do step() end
    assert.equal(allocs, tide.memory("cpu").allocs)
    assert.is_true(resident() - rss < 2048, ("grew by %d KiB"):format(resident() - rss))
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
