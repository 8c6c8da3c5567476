-- Convolutions with kernels of 3x3 by Winograd's F(4x4, 3x3) against the definition in f64.
local tide = require "tide"

--- Run in processes of their own, for the environment is read there: errors of each case, as parts of the greatest value.
local code = image_cases .. [[
  -- N C O H W padding: whole tiles, rows and columns left over, few and many channels, planes smaller than a tile or a vector
  local cases = {{2, 16, 16, 32, 32, 1}, {3, 16, 32, 16, 16, 1}, {2, 64, 64, 8, 8, 1}, {2, 24, 40, 13, 9, 1}, {2, 20, 9, 7, 11, 0},
    {1, 33, 17, 9, 30, 2}, {1, 1, 1, 3, 3, 0}, {1, 1, 3, 1, 1, 1}, {5, 3, 8, 6, 5, 1}, {2, 7, 70, 4, 40, 1}, {0, 4, 4, 8, 8, 1}}
  for _, c in ipairs(cases) do
    local n, ci, co, h, w, pad = table.unpack(c)
    for _, how in ipairs {"first", "last", "strided"} do
      local x, k, b = order(tide.randn(n, ci, h, w), how), tide.randn(co, ci, 3, 3), tide.randn(co)
      if how == "strided" then k = k:permute(4, 3, 2, 1):contiguous():permute(4, 3, 2, 1) end
      local xd, kd = x:to "f64", k:to "f64"
      local y = tide.conv2d(x, k, b, {padding = pad})
      local g = order(tide.randn(table.unpack(y:shape())), how)
      local gd = g:to "f64"
      local worst = math.max(far(y, tide.conv2d(xd, kd, b:to "f64", {padding = pad})),
        far(tide.conv_transpose2d(g, k, nil, {padding = pad}), tide.conv_transpose2d(gd, kd, nil, {padding = pad})),
        far(tide.conv2d_weight_grad(x, g, {kernel = 3, padding = pad}), tide.conv2d_weight_grad(xd, gd, {kernel = 3, padding = pad})))
      assert(worst < 5e-6, table.concat(c, " ") .. " " .. how .. ": " .. worst)
      if how == "last" and n > 0 and h > 1 and ci > 1 then assert(y:permute(1, 3, 4, 2):is_contiguous() == LAST) end
    end
  end
  local x, k = tide.randn(4, 16, 32, 32), tide.randn(16, 16, 3, 3)
  print("sum " .. tide.conv2d(x, k, nil, {padding = 1}):square():sum():item())
]]

describe("convolution by Winograd's method", function()
  local function run(environment, last)
    local output, status = tide_process(code:gsub("LAST", tostring(last)), environment)
    if output:find("does not have these instructions", 1, true) then return nil, "not on this processor" end
    assert(status == 0, output)
    return output:match "sum (%S+)"
  end

  for _, isa in ipairs {"plain", "avx2", "avx512"} do
    it("has the error of a plain sum in f32, on " .. isa, function()
      local sum, why = run("TIDE_WINOGRAD=1 TIDE_CPU_ISA=" .. isa, true)
      if not sum then return pending(why) end
    end)
  end
  it("gives the same bits however many of the taps' points are kept", function()
    tide.manual_seed(7)
    local x, k = tide.randn(3, 40, 13, 18), tide.randn(72, 40, 3, 3)                      -- too many points to keep
    local g = tide.randn(3, 72, 13, 18)
    local y, gx = tide.conv2d(x, k, nil, {padding = 1}), tide.conv_transpose2d(g, k, nil, {padding = 1})
    for o = 0, 40, 40 do                                                                  -- few enough
      local some = k:narrow(1, o + 1, 32)
      assert.is_true(y:narrow(2, o + 1, 32):equal(tide.conv2d(x, some:contiguous(), nil, {padding = 1})))
      assert.is_true(y:narrow(2, o + 1, 32):equal(tide.conv2d(x, some, nil, {padding = 1})))
    end
    local part = k:narrow(2, 9, 16):contiguous()
    assert.is_true(gx:narrow(2, 9, 16):equal(tide.conv_transpose2d(g, part, nil, {padding = 1})))
  end)
  it("is chosen by itself, and left out when the environment says so", function()
    local left_out = assert(run("TIDE_WINOGRAD=0 TIDE_PIXELS=0 TIDE_ONEDNN=0", false))
    local code_of_one = [[
      local tide = require "tide"
      tide.manual_seed(5)
      local x, k = tide.randn(4, 16, 32, 32), tide.randn(16, 16, 3, 3)
      print(tide.conv2d(x, k, nil, {padding = 1}):to "f64":sum():item())
    ]]
    local by_itself = tide_process(code_of_one)
    assert.equal(by_itself, (tide_process(code_of_one, "TIDE_WINOGRAD=1")))
    assert.not_equal(by_itself, (tide_process(code_of_one, "TIDE_WINOGRAD=0")))
    assert.truthy(tonumber(left_out))
  end)
  it("gives the same bits for any number of threads, but for the sums of the weight gradient", function()
    tide.manual_seed(6)
    local x, k, g = tide.randn(6, 16, 33, 31), tide.randn(24, 16, 3, 3), tide.randn(6, 24, 33, 31)
    local before, results = tide.get_num_threads(), {}
    for _, n in ipairs {1, 2, 3} do
      tide.set_num_threads(n)
      results[n] = {tide.conv2d(x, k, nil, {padding = 1}), tide.conv_transpose2d(g, k, nil, {padding = 1}),
        tide.conv2d_weight_grad(x, g, {kernel = 3, padding = 1})}
    end
    tide.set_num_threads(before)
    for n = 2, 3 do
      assert.is_true(results[1][1]:equal(results[n][1]))
      assert.is_true(results[1][2]:equal(results[n][2]))
      assert.is_true(results[1][3]:allclose(results[n][3], {rtol = 1e-4, atol = 2e-3}))   -- sums of 6,138 products
    end
  end)
end)
