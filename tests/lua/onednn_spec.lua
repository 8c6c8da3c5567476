-- The overlay plugin backend_cpu_onednn: convolutions by oneDNN, where it was built.
local tide = require "tide"

local found = false
for _, p in ipairs(tide.plugins()) do found = found or p.name == "backend_cpu_onednn" end

--- Run in processes of their own, for the environment is read there.
local conformance = [[
  local tide = require "tide"
  local report = tide.check.run {{"op", "conv2d"}, {"op", "conv_transpose2d"}, {"op", "conv2d_weight_grad"}, {"layer", "Conv2d"},
    {"layer", "ConvTranspose2d"}}
  assert(#report.failed == 0, tostring(report))
  assert(report.passed > 50, report.passed)
]]
local cases = [[
  local tide = require "tide"
  tide.manual_seed(3)
  local function order(t, how)
    if how == "last" then return t:permute(1, 3, 4, 2):contiguous():permute(1, 4, 2, 3) end
    if how == "strided" then return tide.cat({t, t}, 4):slice(4, 1, 2 * t:size(4), 2):copy_(t) end
    return t
  end
  local function far(a, b)
    assert(a:shape() == b:shape())
    if b:numel() == 0 then return 0 end
    return ((a:to "f64" - b):abs():amax() / b:abs():amax()):item()
  end
  -- N C O H W, kernel, stride, padding, dilation, groups
  for _, c in ipairs {{4, 16, 32, 32, 32, 3, 2, 1, 1, 1}, {4, 16, 32, 31, 28, 3, 2, 1, 1, 1}, {4, 16, 32, 32, 32, 1, 2, 0, 1, 1},
    {2, 6, 16, 14, 14, 5, 1, 0, 1, 1}, {2, 8, 8, 9, 7, 3, 2, 1, 1, 4}, {2, 8, 8, 9, 7, 3, 1, 2, 2, 1}, {3, 8, 8, 9, 8, 3, 1, 1, 1, 8},
    {1, 3, 5, 11, 10, 3, 3, 0, 1, 1}, {1, 24, 40, 16, 16, 1, 1, 0, 1, 1}, {0, 8, 8, 8, 8, 3, 2, 1, 1, 1},
    {2, 8, 16, 20, 20, 5, 3, 2, 1, 1}} do
    local n, ci, co, h, w, k, stride, pad, dilation, groups = table.unpack(c)
    local left = {}
    for i, e in ipairs {h, w} do left[i] = (e + 2 * pad - dilation * (k - 1) - 1) % stride end
    for _, how in ipairs {"first", "last", "strided"} do
      local o = {stride = stride, padding = pad, dilation = dilation, groups = groups}
      local x, wt, b = order(tide.randn(n, ci, h, w), how), tide.randn(co, ci // groups, k, k), tide.randn(co)
      local y = tide.conv2d(x, wt, b, o)
      local worst = far(y, tide.conv2d(x:to "f64", wt:to "f64", b:to "f64", o))
      local g = order(tide.randn(table.unpack(y:shape())), how)
      local gd = g:to "f64"
      o.output_padding = left
      worst = math.max(worst, far(tide.conv_transpose2d(g, wt, nil, o), tide.conv_transpose2d(gd, wt:to "f64", nil, o)))
      o.output_padding, o.kernel = nil, k
      worst = math.max(worst, far(tide.conv2d_weight_grad(x, g, o), tide.conv2d_weight_grad(x:to "f64", gd, o)))
      assert(worst < 5e-6, table.concat(c, " ") .. " " .. how .. ": " .. worst)
    end
  end
  local g, wt = tide.randn(8, 32, 16, 16), tide.randn(32, 16, 3, 3)
  local gx = tide.conv_transpose2d(g, wt, nil, {stride = 2, padding = 1, output_padding = 1})
  print("sum " .. gx:to "f64":sum():item())
]]

local function sum(environment)
  local output, status = tide_process(cases, environment)
  assert(status == 0, output)
  return output:match "sum (%S+)", output
end

describe("the overlay with oneDNN", function()
  if not found then return pending "it was not built: no oneDNN 2 here" end

  it("passes the conformance suite wherever it can compute", function()
    local output, status = tide_process(conformance, "TIDE_ONEDNN=1")
    assert(status == 0, output)
  end)
  it("agrees with f64 for odd shapes and all orders of axes, forced, by itself, and left out", function()
    local forced, by_itself, left_out = sum "TIDE_ONEDNN=1", sum(), sum "TIDE_ONEDNN=0"
    assert.equal(forced, by_itself) -- the input gradient with stride is what it is taken for
    assert.near(tonumber(left_out), tonumber(by_itself), 1e-2)
    assert.equal(by_itself, (sum())) -- and again the same bits
  end)
  it("obeys the number of threads", function()
    local code = [[
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
    local output = tide_process(code, "TIDE_ONEDNN=1")
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
