local tide = require "tide"
local data = tide.data
local T = data.transforms

local function image(h, w) return tide.arange(1, h * w + 1):reshape {1, 1, h, w} end

describe("transforms", function()
  it("normalise each channel", function()
    local x = tide.tensor {{{{0, 1}}, {{2, 4}}}}         -- (1, 2, 1, 2)
    assert.same({{{{-1, 1}}, {{0, 4}}}}, T.Normalize({0.5, 2}, {0.5, 0.5})(x):totable())
    assert.same({{{{-1, 0}}, {{1, 3}}}}, T.Normalize(1, 1)(x):totable())
    assert.same({{1, -1}}, T.Normalize({0, 1}, {1, 2})(tide.tensor {{1, -1}}):totable())
    assert.equal("f32", T.Normalize(0, 255)(tide.tensor({{255}}, {dtype = "u8"})).dtype)
  end)

  it("pad and crop the middle", function()
    assert.same({{{{9, 9, 9, 9}, {9, 1, 2, 9}, {9, 9, 9, 9}}}}, T.Pad(1, {fill = 9})(image(1, 2)):totable())
    assert.same({{{{0, 0, 1, 2}}}}, T.Pad({2, 0, 0, 0})(image(1, 2)):totable())
    assert.same({{{{6, 7}, {10, 11}}}}, T.CenterCrop(2)(image(4, 4)):totable())
    assert.same({{{{2}}}}, T.CenterCrop {1, 1}(image(1, 3)):totable())
    assert.same({{6, 7}, {10, 11}}, T.CenterCrop(2)(image(4, 4):squeeze(2))[1]:totable())
  end)

  it("flip all images or none", function()
    local x = tide.arange(1, 13):reshape {2, 1, 2, 3}
    assert.same({{{3, 2, 1}, {6, 5, 4}}}, T.RandomHorizontalFlip(1)(x)[1]:totable())
    assert.same({{{10, 11, 12}, {7, 8, 9}}}, T.RandomVerticalFlip(1)(x)[2]:totable())
    assert.is_true(x:equal(T.RandomHorizontalFlip(0)(x)))
  end)

  it("flip about half of the images", function()
    tide.manual_seed(3)
    local y = T.RandomHorizontalFlip()(tide.tensor {{{{0, 1}}}}:expand {4000, 1, 1, 2})
    assert.near(2000, y:select(4, 1):sum():item(), 150)
  end)

  it("crop a window from anywhere in the padded image, and each place about as often", function()
    tide.manual_seed(4)
    local y = T.RandomCrop(3, {padding = 1, fill = -1})(image(3, 3):expand {900, 1, 3, 3})
    local padded = T.Pad(1, {fill = -1})(image(3, 3))
    local seen = {}
    for i = 1, 900 do
      local found
      for top = 1, 3 do
        for left = 1, 3 do
          if padded:narrow(3, top, 3):narrow(4, left, 3)[1]:equal(y[i]) then
            assert.is_nil(found)
            found = top * 10 + left
          end
        end
      end
      assert.truthy(found)
      seen[found] = (seen[found] or 0) + 1
    end
    for top = 1, 3 do for left = 1, 3 do assert.near(100, seen[top * 10 + left], 45) end end
  end)

  it("erase a rectangle of the size that was asked for", function()
    tide.manual_seed(5)
    local y = T.RandomErasing(1, {area = {0.25, 0.25}, ratio = {1, 1}, fill = 7})(tide.zeros(20, 2, 8, 8))
    for i = 1, 20 do
      local erased = y[i]:eq(7)
      assert.equal(2 * 16, erased:sum():item())
      assert.equal(4, erased[1]:any {axes = 1}:sum():item())
      assert.is_true(erased[1]:equal(erased[2]))
    end
    assert.equal(0, T.RandomErasing(0)(tide.ones(3, 1, 4, 4)):eq(0):sum():item())
  end)

  it("run in order, and in chains of chains", function()
    local chain = T.Compose {T.Compose {T.Normalize(1, 1), T.Pad(1)}, T.CenterCrop(1)}
    assert.same({{{{4}}}}, chain(tide.full({1, 1, 1, 1}, 5)):totable())
    assert.equal("Normalize, Pad, CenterCrop", tostring(chain))
    assert.is_true(image(2, 2):equal(T.Compose {}(image(2, 2))))
  end)

  it("refuse what does not fit", function()
    fails_with(function() T.CenterCrop(5)(image(4, 4)) end, "CenterCrop: 5 x 5 is larger than the image, 4 x 4")
    fails_with(function() T.RandomCrop(9, {padding = 2})(image(4, 4)) end, "RandomCrop: 9 x 9", "8 x 8 with its padding")
    fails_with(function() T.Normalize({1, 2, 3}, {1, 1, 1})(image(4, 4)) end, "samples of 3 channels, got 1")
    fails_with(function() T.Normalize({1, 2}, {1}) end, "Normalize: std", "as many numbers as mean, 2")
    fails_with(function() T.Normalize(0, 0) end, "std", "> 0")
    fails_with(function() T.RandomHorizontalFlip(2) end, "p: expected a number from 0 to 1")
    fails_with(function() T.RandomCrop(0) end, "size")
    fails_with(function() T.RandomCrop(3, {pading = 1}) end, "did you mean 'padding'")
    fails_with(function() T.Pad {1, 2, 3} end, "padding")
    fails_with(function() T.Pad(1)(tide.ones(2, 3)) end, "no pixels")
    fails_with(function() T.Pad(1)(tide.ones(3)) end, "samples (C, H, W)")
    fails_with(function() T.Compose {1} end, "list[1]", "a transform")
    fails_with(function() T.Pad(1)(3) end, "Pad: x: expected a Tensor, got 3")
    fails_with(function() tide.data.transforms.Pad(1 << 19)(tide.ones(1, 1, 1, 1)) end, "too large")
  end)
end)

describe("a Loader with transforms", function()
  local n = 37
  tide.manual_seed(6)
  local x = tide.randint(0, 256, {shape = {n, 3, 8, 8}, dtype = "u8"})
  local y = tide.arange(1, n + 1, {dtype = "i64"})
  local set = data.TensorDataset(x, y, {scale = 1 / 255})
  local chain = {T.RandomCrop(8, {padding = 2}), T.RandomHorizontalFlip(), T.RandomErasing(0.5),
                 T.Normalize({0.5, 0.4, 0.3}, {0.2, 0.3, 0.4})}

  --- All samples of some epochs by their labels, and the labels in order.
  local function epochs(opts, count, dataset)
    tide.manual_seed(7)
    opts.batch, opts.transform = 5, opts.transform or chain
    local loader, list, order = data.Loader(dataset or set, opts), {}, {}
    for e = 1, count do
      list[e] = {}
      for bx, by in loader:epoch() do
        for i = 1, #by do
          list[e][by[i]:item()] = bx[i]:clone()
          order[#order + 1] = by[i]:item()
        end
      end
    end
    return list, order
  end

  local function same(a, b, nearly)
    for i = 1, n do
      if not (nearly and a[i]:allclose(b[i], {atol = 1e-6}) or a[i]:equal(b[i])) then return false end
    end
    return true
  end

  local reference, order = epochs({workers = 0, shuffle = true}, 2)

  for _, workers in ipairs {1, 3, 16} do
    it(("gives the same batches with %d workers"):format(workers), function()
      local got, got_order = epochs({workers = workers, prefetch = 4, shuffle = true}, 2)
      assert.same(order, got_order)
      for e = 1, 2 do assert.is_true(same(reference[e], got[e])) end
    end)
  end

  it("gives the same without prefetch, and for datasets that are no tensors", function()
    local plain = setmetatable({get = function(_, i) return x[i]:to "f32" * (1 / 255), y[i] end}, {__len = function() return n end})
    assert.is_true(same(reference[1], epochs({prefetch = 0, shuffle = true}, 1)[1]))
    assert.is_true(same(reference[1], epochs({shuffle = true}, 1, plain)[1], true))   -- it scales in f32
  end)

  it("chooses by sample, not by its place in the order", function()
    assert.is_true(same(reference[1], epochs({}, 1)[1]))
  end)

  it("chooses anew in each epoch", function() assert.is_false(same(reference[1], reference[2])) end)

  it("leaves the labels alone, and draws nothing where nothing is random", function()
    tide.manual_seed(9)
    local before = tide.random_state()
    for bx, by in data.Loader(set, {batch = n, transform = T.Normalize(0, 1)}):epoch() do
      assert.is_true(by:equal(y))
      assert.is_true(bx:allclose(x:to "f32" / 255))
    end
    assert.same(before, tide.random_state())
  end)

  it("says once, and at the script's line, what does not fit", function()
    local loader = data.Loader(set, {batch = 5, workers = 2, transform = T.CenterCrop(9)})
    fails_with(function() loader:epoch() end, "transforms_spec.lua:", "CenterCrop: 9 x 9 is larger than the image, 8 x 8")
    local words = data.TensorDataset(tide.ones(3, 4, {dtype = "i64"}))
    fails_with(function() data.Loader(words, {transform = T.Normalize(0, 1)}):epoch() end, "u8 and f32 samples, got i64")
    fails_with(function() data.Loader(set, {transform = 3}) end, "transform: expected a transform, a list of them, or a function")
    fails_with(function() data.Loader(set, {workers = -1}) end, "workers")
    fails_with(function() data.Loader(set, {workers = 17}) end, "at most 16")
  end)

  --- Leaves an epoch at its first batch: by break, or by an error.
  local function leave(loader, message)
    for bx in loader:epoch() do
      if message then error(message) end
      if bx then break end
    end
  end

  it("leaves nothing behind when a loop is left", function()
    local loader = data.Loader(set, {batch = 5, workers = 2, prefetch = 4, transform = chain})
    for _ = 1, 3 do leave(loader) end
    collectgarbage()
    collectgarbage()
    local before = tide.memory().current
    for _ = 1, 20 do
      leave(loader)
      pcall(leave, loader, "x")
    end
    collectgarbage()
    collectgarbage()
    assert.equal(before, tide.memory().current)
    assert.truthy(loader.idle)
  end)

  it("counts batches and the time that the script has waited", function()
    local loader = data.Loader(set, {batch = 5, transform = chain})
    assert.same({epochs = 0, batches = 0, wait = 0.0, elapsed = 0.0, share = 0}, loader:stats())
    for _ = 1, 2 do for _ in loader:epoch() do tide.ones(3) end end
    local s = loader:stats()
    assert.equal(2, s.epochs)
    assert.equal(16, s.batches)
    assert.is_true(s.wait > 0 and s.wait < s.elapsed)
    assert.near(s.wait / s.elapsed, s.share, 1e-12)
  end)
end)
