-- Pooling of images with channels innermost, against the same of images row by row in f64.
local tide = require "tide"
local last = tide.channels_last

local function is_last(x) return x:permute(1, 3, 4, 2):is_contiguous() end

local function close(a, b) assert((a:to "f64" - b):abs():max():item() <= 2e-6 * math.max(1, b:abs():max():item())) end

describe("pooling with channels innermost", function()
  before_each(function() tide.manual_seed(4) end)

  -- channels: one part of them and less, several and a rest
  local sizes = {{2, 3, 7, 6}, {3, 16, 8, 8}, {2, 70, 9, 5}, {1, 64, 4, 4}, {4, 130, 14, 14}}
  local options = {{kernel = 2}, {kernel = {3, 2}, stride = 2, padding = 1, ceil_mode = true}, {kernel = 3, stride = 1, padding = 1},
                   {kernel = 3, stride = 2, padding = 1}, {kernel = 2, stride = 3}, {kernel = {4, 1}, padding = {1, 0}}}
  for _, c in ipairs(sizes) do
    it(("computes the same maxima, means and gradients, x (%s)"):format(table.concat(c, ", ")), function()
      local x = tide.randn(table.unpack(c))
      local function run(f, v, g)
        v = v:detach():requires_grad_()
        local y = f(v)
        return y, tide.grad({y}, {v}, {grad_outputs = {g and g(y) or y:detach()}})[1]
      end
      local fs = {function(v) return tide.adaptive_avg_pool2d(v, {output = 1}) end,
                  function(v) return tide.adaptive_avg_pool2d(v, {output = {3, 2}}) end}
      for _, o in ipairs(options) do
        fs[#fs + 1] = function(v) return tide.max_pool2d(v, o) end
        fs[#fs + 1] = function(v) return tide.avg_pool2d(v, o) end
        local without = {kernel = o.kernel, stride = o.stride, padding = o.padding, count_include_pad = false}
        fs[#fs + 1] = function(v) return tide.avg_pool2d(v, without) end
      end
      for _, f in ipairs(fs) do
        local y, gx = run(f, last(x))
        local want, want_gx = run(f, x:to "f64")
        close(y, want)
        close(gx, want_gx)
        assert.is_true(is_last(y))
      end
    end)
  end

  it("spreads the gradient of the mean of an image", function()
    for _, f in ipairs {function(v) return tide.adaptive_avg_pool2d(v, {output = 1}) end,
                        function(v) return tide.avg_pool2d(v, {kernel = {6, 7}}) end} do
      for _, x in ipairs {tide.randn(2, 5, 6, 7), last(tide.randn(2, 5, 6, 7))} do
        local v, g = x:detach():requires_grad_(), tide.randn(2, 5)
        local gx = tide.grad({f(v):flatten(2, 4)}, {v}, {grad_outputs = {g}})[1]
        close(gx, (g:to "f64" / 42):reshape(2, 5, 1, 1):expand(2, 5, 6, 7))
      end
    end
  end)

  it("takes dilated windows, and keeps ties and NaN as they are row by row", function()
    local x = tide.randint(0, 3, {2, 5, 9, 8}):to "f32"
    x[{1, 2, 3, 4}] = 0 / 0
    for _, o in ipairs {{kernel = 2}, {kernel = 3, stride = 2, padding = 1, dilation = 2}} do
      local function gradient(v)
        v = v:detach():requires_grad_()
        local y = tide.max_pool2d(v, o)
        return tide.grad({y}, {v}, {grad_outputs = {tide.ones(y:shape())}})[1], y
      end
      local a, ya = gradient(last(x))
      local b, yb = gradient(x)
      assert.is_true(a:equal(b))
      assert.is_true(ya:masked_fill(ya:isnan(), 7):equal(yb:masked_fill(yb:isnan(), 7)))
    end
  end)

  it("refuses an index outside the image", function()
    local g = last(tide.ones(1, 4, 2, 2))
    local index = last(tide.ones(1, 4, 2, 2):to "i64" * 26)
    fails_with(function() tide.max_pool2d_backward(g, index, 5, 5) end, "max_pool2d_backward", "26", "1..25")
  end)
end)
