-- The kernels that compute convolutions, each forced in turn, against f64 and the conformance suite.
local tide = require "tide"

--- Run in processes of their own, for the environment is read there.
local conformance = [[
  local tide = require "tide"
  local report = tide.check.run {{"op", "conv2d"}, {"op", "conv2d_act"}, {"op", "conv_transpose2d"}, {"op", "conv2d_weight_grad"},
    {"layer", "Conv2d"}, {"layer", "ConvTranspose2d"}}
  assert(#report.failed == 0, tostring(report))
  assert(report.passed > 50, report.passed)
]]
local cases = image_cases .. [[
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
  -- batch norm: one vector of channels and less, more, many; few rows and several chunks of them
  for _, c in ipairs {{32, 16, 32, 32}, {3, 5, 7, 6}, {2, 70, 9, 9}, {3, 130, 2, 2}, {7, 8, 20, 30}} do
    local x, g = tide.randn(table.unpack(c)) + 3, tide.randn(table.unpack(c))
    local results = {}
    for _, dtype in ipairs {"f32", "f64"} do
      local bn = tide.nn.BatchNorm2d(c[2]):to(dtype)
      local v = (dtype == "f32" and order(x, "last") or x:to(dtype)):detach():requires_grad_()
      local y = bn(v)
      local list = {y, table.unpack(tide.grad({y}, {v, bn.weight, bn.bias},
        {grad_outputs = {dtype == "f32" and order(g, "last") or g:to(dtype)}}))}
      bn:eval()
      list[#list + 1] = bn(v)
      list[#list + 1] = bn.running_var
      results[dtype] = list
    end
    for i, a in ipairs(results.f32) do
      local worst = far(a, results.f64[i])
      assert(worst < 2e-6, "batch norm " .. table.concat(c, " ") .. " " .. i .. ": " .. worst)
    end
  end
]]


describe("convolutions agree with f64 for odd shapes and all orders of axes", function()
  for _, isa in ipairs {"plain", "avx2", "avx512"} do
    for name, environment in pairs {["rows of pixels"] = "TIDE_PIXELS=1 TIDE_WINOGRAD=0", ["planes"] = "TIDE_PIXELS=0 TIDE_WINOGRAD=0"} do
      it("by " .. name .. ", " .. isa, function()
        local output, status = tide_process(cases, environment .. " TIDE_ONEDNN=0 TIDE_CPU_ISA=" .. isa)
        if output:find("does not have these instructions", 1, true) then return pending "not on this processor" end
        assert(status == 0, output)
      end)
    end
  end
  for _, environment in ipairs {"TIDE_ONEDNN=1", "TIDE_ONEDNN=x"} do
    it("with " .. environment, function()
      local output, status = tide_process(cases, no_leak_check .. environment)
      assert(status == 0, output)
    end)
  end
end)

describe("convolutions pass the conformance suite", function()
  for _, environment in ipairs {"TIDE_ONEDNN=1", "TIDE_PIXELS=1 TIDE_WINOGRAD=0 TIDE_ONEDNN=0", "TIDE_WINOGRAD=1 TIDE_ONEDNN=0"} do
    it("with " .. environment, function()
      local output, status = tide_process(conformance, no_leak_check .. environment)
      assert(status == 0, output)
    end)
  end
end)

describe("convolution with channels innermost", function()
  local last = tide.channels_last

  it("keeps it through batch norm and ReLU, forward and backward", function()
    local x = last(tide.randn(4, 16, 8, 8)):requires_grad_()
    local net = tide.nn.Sequential(tide.nn.Conv2d {16, 32, 3, padding = 1}, tide.nn.BatchNorm2d(32), tide.nn.ReLU(),
      tide.nn.Conv2d {32, 16, 1})
    local y = net(x)
    assert.is_true(y:permute(1, 3, 4, 2):is_contiguous())
    local gx = tide.grad({y}, {x}, {grad_outputs = {last(tide.randn(4, 16, 8, 8))}})[1]
    assert.is_true(gx:permute(1, 3, 4, 2):is_contiguous())
  end)
  it("is kept from the 3 channels of a photograph on, and by pooling", function()
    local nn = tide.nn
    tide.manual_seed(7)
    local net = nn.Sequential(nn.Conv2d {3, 10, 5, padding = 2}, nn.BatchNorm2d(10), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d {10, 6, 3})
    local x = tide.randn(2, 3, 12, 12)
    local y = net(last(x))
    assert.is_true(y:permute(1, 3, 4, 2):is_contiguous())
    assert.near(0, (y - net(x)):abs():max():item(), 1e-5)
    local w = net:parameters()[1]
    local a = tide.grad({net(x):square():sum()}, {w})[1]
    local b = tide.grad({net(last(x)):square():sum()}, {w})[1]
    assert.near(0, (a - b):abs():max():item() / a:abs():max():item(), 1e-4)
  end)
  it("is asked for by tide.channels_last, which keeps values and gradients", function()
    local x = tide.randn(2, 3, 4, 5):requires_grad_()
    local y = last(x)
    assert.is_true(y:equal(x))
    assert.is_false(y:is_contiguous())
    local g = tide.randn(2, 3, 4, 5)
    assert.is_true(tide.grad({y}, {x}, {grad_outputs = {g}})[1]:equal(g))
    fails_with(function() tide.channels_last(tide.ones(2, 3)) end, "channels_last", "(2, 3)")
    fails_with(function() tide.channels_last(3) end, "channels_last", "Tensor")
  end)
  it("gives results in that order", function()
    local x, g = last(tide.randn(2, 16, 8, 8)), last(tide.randn(2, 24, 4, 4))
    local w = tide.randn(24, 16, 3, 3)
    assert.is_true(tide.conv2d(x, w, nil, {stride = 2, padding = 1}):permute(1, 3, 4, 2):is_contiguous())
    assert.is_true(tide.conv2d(x, w, nil, {padding = 1}):permute(1, 3, 4, 2):is_contiguous())
    assert.is_true(tide.conv_transpose2d(g, w, nil, {stride = 2, padding = 1}):permute(1, 3, 4, 2):is_contiguous())
  end)
  it("gives the same bits for any number of threads, but for the sums of the weight gradient", function()
    local x, w, g = tide.randn(5, 16, 33, 31), tide.randn(24, 16, 3, 3), tide.randn(5, 24, 17, 16)
    local before, results = tide.get_num_threads(), {}
    for _, n in ipairs {1, 2, 3} do
      tide.set_num_threads(n)
      results[n] = {tide.conv2d(x, w, nil, {stride = 2, padding = 1}), tide.conv_transpose2d(g, w, nil, {stride = 2, padding = 1}),
        tide.conv2d_weight_grad(x, g, {kernel = 3, stride = 2, padding = 1})}
    end
    tide.set_num_threads(before)
    for n = 2, 3 do
      assert.is_true(results[1][1]:equal(results[n][1]))
      assert.is_true(results[1][2]:equal(results[n][2]))
      assert.is_true(results[1][3]:allclose(results[n][3], {rtol = 1e-4, atol = 1e-4}))
    end
  end)
end)
