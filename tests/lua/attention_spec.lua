-- Attention: shapes, masks, rows that see nothing, shared heads, strides, what is refused, and that the kernels agree with the definition.
-- Values against PyTorch are in sequence_ref_spec.lua.
local tide = require "tide"
local nn, attention = tide.nn, tide.scaled_dot_product_attention

local function shape(t) return tostring(t:shape()) end

local function everything(q, k, v, ...)
  local x = {}
  for i, t in ipairs {q, k, v} do x[i] = t:detach():requires_grad_() end
  local y = attention(x[1], x[2], x[3], ...)
  local weights = tide.arange(1, y:numel() + 1):reshape(y:shape()):cos()
  return {y, table.unpack(tide.grad({(y * weights):sum()}, x))}
end

local function agree(expected, got, tolerance)
  for i, want in ipairs(expected) do
    assert(want:shape() == got[i]:shape(), ("%d: %s and %s"):format(i, want:shape(), got[i]:shape()))
    assert(want:allclose(got[i], {rtol = tolerance, atol = tolerance}),
      ("%d: expected %s, got %s"):format(i, tostring(want), tostring(got[i])))
  end
end

local function check(...)
  local inputs = table.pack(...)
  local expected = by_definition(function() return everything(table.unpack(inputs, 1, inputs.n)) end)
  agree(expected, everything(...), 2e-4)
end

describe("scaled_dot_product_attention", function()
  it("weighs v by softmax(q k^T / sqrt(D))", function()
    local q, k, v = tide.tensor {{1, 2}}, tide.tensor {{1, 0}, {0, 1}}, tide.tensor {{10, 0, 1}, {0, 20, 1}}
    local a, b = math.exp(1 / math.sqrt(2)), math.exp(2 / math.sqrt(2))
    assert_close({{10 * a / (a + b), 20 * b / (a + b), 1}}, attention(q, k, v), 1e-5)
    assert_close({{5, 10, 1}}, attention(q, k, v, {scale = 0}), 1e-5)
  end)

  it("agrees with its definition at sizes beside those of vectors and tiles", function()
    tide.manual_seed(1)
    for _, s in ipairs {{1, 1, 1, 1, 1}, {2, 3, 5, 7, 3}, {2, 65, 65, 32, 32}, {1, 130, 70, 16, 24},
                        {3, 64, 200, 64, 64}, {1, 33, 129, 80, 5}} do
      local q, k, v = tide.randn(s[1], 2, s[2], s[4]), tide.randn(s[1], 2, s[3], s[4]), tide.randn(s[1], 2, s[3], s[5])
      check(q, k, v)
      check(q, k, v, nil, {is_causal = true})
      check(q, k, v, tide.rand(s[2], s[3]):lt(0.5))
      check(q, k, v, tide.randn(s[1], 1, s[2], s[3]), {scale = 0.3})
      check(q, k, v, tide.rand(2, 1, s[3]):lt(0.7), {is_causal = true})
    end
  end)

  it("drops weights of attention", function()
    tide.manual_seed(7)
    local v = tide.randn(2, 3, 9, 5)
    for _, s in ipairs {{4, 9, 6}, {70, 9, 8}} do
      local q, k = tide.randn(2, 3, s[1], s[3]), tide.randn(2, 3, s[2], s[3])
      local kept = tide.rand(2, 3, s[1], s[2]):ge(0.3)
      check(q, k, v, nil, kept, {dropout = 0.3})
      check(q, k, v, nil, kept, {dropout = 0.3, is_causal = true})
      check(q, k, v, tide.rand(s[1], s[2]):lt(0.7), kept, {dropout = 1})
      local all = tide.ones({table.unpack(kept:shape())}, {dtype = "bool"})
      assert(attention(q, k, v):equal(attention(q, k, v, nil, all)))
    end
    local q, k = tide.randn(2, 130, 16), tide.randn(2, 150, 16)
    check(q, k, tide.randn(2, 150, 16), nil, tide.rand(2, 130, 150):ge(0.5), {dropout = 0.5, is_causal = true})
  end)

  it("wants to be given what dropout keeps", function()
    local q = tide.randn(1, 3, 4)
    fails_with(function() attention(q, q, q, {dropout = 0.1}) end, "kept: expected the mask of what dropout 0.1 keeps, got none")
    fails_with(function() attention(q, q, q, nil, tide.ones({3, 3}, {dtype = "bool"}), {dropout = 0.1}) end, "kept", "(1, 3, 3)")
    fails_with(function() attention(q, q, q, nil, tide.ones {1, 3, 3}, {dropout = 0.1}) end, "kept: expected bool, got f32")
    fails_with(function() attention(q, q, q, {dropout = 2}) end, "dropout")
  end)

  it("works on two and more axes", function()
    tide.manual_seed(2)
    check(tide.randn(6, 4), tide.randn(9, 4), tide.randn(9, 3))
    check(tide.randn(3, 6, 4), tide.randn(3, 9, 4), tide.randn(3, 9, 3))
    check(tide.randn(2, 2, 3, 6, 4), tide.randn(2, 2, 3, 9, 4), tide.randn(2, 2, 3, 9, 3))
  end)

  it("shares heads of k and v", function()
    tide.manual_seed(3)
    local q, k, v = tide.randn(2, 6, 10, 8), tide.randn(2, 2, 12, 8), tide.randn(2, 2, 12, 8)
    check(q, k, v)
    check(q, k, v, tide.rand(6, 10, 12):lt(0.6), {is_causal = true})
    local y = attention(q, k, v)
    assert(y:narrow(2, 1, 3):allclose(attention(q:narrow(2, 1, 3), k:narrow(2, 1, 1):expand(2, 3, 12, 8),
      v:narrow(2, 1, 1):expand(2, 3, 12, 8)), {rtol = 1e-4, atol = 1e-5}))
  end)

  it("reads heads where one projection left them, and orders its result so that heads join without a copy", function()
    tide.manual_seed(4)
    local n, t, h, d = 2, 20, 3, 16
    local qkv = tide.randn(n, t, 3, h, d)
    local function part(i) return qkv:select(3, i):transpose(2, 3) end
    check(part(1), part(2), part(3), nil, {is_causal = true})
    local y = attention(part(1), part(2), part(3))
    assert.is_true(y:transpose(2, 3):is_contiguous())
    local x = qkv:clone():requires_grad_()
    local function of_x(i) return x:select(3, i):transpose(2, 3) end
    attention(of_x(1), of_x(2), of_x(3)):sum():backward()
    assert.equal("(2, 20, 3, 3, 16)", shape(x.grad))
    check(part(1):transpose(3, 4):contiguous():transpose(3, 4), part(2), part(3)) -- the last axis not dense
    check(tide.randn(1, 1, 5, 8):expand(2, 3, 5, 8), tide.randn(2, 3, 5, 8), tide.randn(1, 3, 5, 8):expand(2, 3, 5, 8))
  end)

  it("gives zeros, and no gradient, for a row that may look at nothing", function()
    local may = tide.tensor({{true, false}, {false, false}}, {dtype = "bool"})
    local q, k, v = tide.randn(2, 4), tide.randn(2, 4), tide.randn(2, 4)
    for _, mask in ipairs {may, tide.where(may, 0.0, -1 / 0)} do
      local r = everything(q, k, v, mask)
      assert(r[1]:select(1, 1):allclose(v:select(1, 1), {rtol = 1e-6}))
      assert.equal(0, r[1]:select(1, 2):abs():sum():item())
      assert.equal(0, r[2]:select(1, 2):abs():sum():item())
      for i = 1, 4 do assert.is_false(r[i]:isnan():any():item()) end
    end
  end)

  it("sees nothing where there are no keys", function()
    assert_close({{0, 0, 0}, {0, 0, 0}}, attention(tide.randn(2, 4), tide.randn(0, 4), tide.randn(0, 3)))
    assert.equal("(2, 0, 3)", shape(attention(tide.randn(2, 0, 4), tide.randn(2, 5, 4), tide.randn(2, 5, 3))))
    assert.equal("(0, 5, 3)", shape(attention(tide.randn(0, 5, 4), tide.randn(0, 5, 4), tide.randn(0, 5, 3))))
    local r = everything(tide.randn(2, 4), tide.randn(0, 4), tide.randn(0, 3))
    assert.equal(0, r[2]:abs():sum():item())
    r = everything(tide.randn(2, 0, 5, 4), tide.randn(2, 3, 5, 4), tide.randn(2, 3, 5, 4)) -- no head looks
    assert.equal(0, r[3]:abs():sum():item() + r[4]:abs():sum():item())
    assert_close({{2}, {2}}, attention(tide.randn(2, 0), tide.randn(3, 0), tide.full({3, 1}, 2.0)))
    assert.equal("(2, 0)", shape(attention(tide.randn(2, 4), tide.randn(3, 4), tide.randn(3, 0))))
  end)

  it("stays finite with huge scores, and keeps NaN in its row", function()
    local q, k, v = tide.tensor {{1e4, 0}, {0 / 0, 0}, {1, 1}}, tide.tensor {{1e4, 0}, {-1e4, 0}}, tide.tensor {{1, 2}, {3, 4}}
    local y = attention(q, k, v)
    assert_close({1, 2}, y:select(1, 1))
    assert.is_true(y:select(1, 2):isnan():all():item())
    assert.is_false(y:select(1, 3):isnan():any():item())
  end)

  it("looks back only, when causal", function()
    tide.manual_seed(5)
    local q, k, v = tide.randn(100, 8), tide.randn(100, 8), tide.randn(100, 8)
    local y = attention(q, k, v, {is_causal = true})
    k[{{60, 100}}], v[{{60, 100}}] = 7, 7
    local z = attention(q, k, v, {is_causal = true})
    assert.is_true(y:narrow(1, 1, 59):equal(z:narrow(1, 1, 59)))
    assert(y:select(1, 1):allclose(v:select(1, 1)))
  end)

  it("gives the same bits on one thread and on several", function()
    tide.manual_seed(6)
    local q, k, v = tide.randn(4, 4, 64, 32), tide.randn(4, 4, 64, 32), tide.randn(4, 4, 64, 32)
    local before = tide.get_num_threads()
    tide.set_num_threads(1)
    local one = everything(q, k, v, nil, {is_causal = true})
    tide.set_num_threads(2)
    local two = everything(q, k, v, nil, {is_causal = true})
    tide.set_num_threads(before)
    for i = 1, 4 do assert.is_true(one[i]:equal(two[i])) end
  end)

  it("has right gradients, first and second", function()
    tide.manual_seed(7)
    local o = {dtype = "f64"}
    local inputs = {tide.randn(2, 3, 2, o), tide.randn(1, 4, 2, o), tide.randn(1, 4, 3, o)}
    local mask = tide.tensor({{true, true, false, true}, {false, false, false, false}, {true, true, true, false}}, {dtype = "bool"})
    for _, m in ipairs {false, mask, tide.randn(3, 4)} do
      local function f(q, k, v) return attention(q, k, v, m or nil, {is_causal = not m}) end
      assert(tide.gradcheck(f, inputs))
      assert(tide.gradcheck(f, inputs, {second = true, atol = 1e-4}))
    end
  end)

  it("says what does not fit", function()
    local q = tide.randn(2, 4, 5, 8)
    fails_with(function() attention(q, tide.randn(2, 4, 6, 7), tide.randn(2, 4, 6, 8)) end,
      "scaled_dot_product_attention: expected q (..., H, T, D)", "(2, 4, 5, 8), (2, 4, 6, 7) and (2, 4, 6, 8)")
    fails_with(function() attention(q, tide.randn(2, 3, 6, 8), tide.randn(2, 3, 6, 8)) end, "H' dividing H")
    fails_with(function() attention(q, tide.randn(1, 4, 6, 8), tide.randn(2, 4, 6, 8)) end, "scaled_dot_product_attention: expected q")
    fails_with(function() attention(tide.randn(8), tide.randn(8), tide.randn(8)) end, "expected axes (..., T, D)")
    fails_with(function() attention(q, q, q, tide.ones(5, 4):gt(0)) end,
      "mask: expected a shape that broadcasts to (2, 4, 5, 5), got (5, 4)")
    fails_with(function() attention(q, q, q, tide.ones(5, 5):to "i64") end, "mask: expected bool or a float dtype, got i64")
    fails_with(function() attention(q:to "i64", q:to "i64", q:to "i64") end, "expected a float dtype")
  end)
end)

describe("nn.MultiheadAttention", function()
  it("attends to itself, or to another sequence", function()
    local m = nn.MultiheadAttention {8, 2, batch_first = true}
    assert.equal("(3, 5, 8)", shape(m(tide.randn(3, 5, 8))))
    assert.equal("(3, 5, 8)", shape(m(tide.randn(3, 5, 8), tide.randn(3, 7, 8))))
    assert.equal("(5, 3, 8)", shape(nn.MultiheadAttention(8, 2)(tide.randn(5, 3, 8), tide.randn(7, 3, 8))))
  end)

  it("gives the same for x alone and for x three times", function()
    local m, x = nn.MultiheadAttention {8, 2, is_causal = true}, tide.randn(5, 3, 8)
    assert(m(x):allclose(m(x, x:clone(), x:clone()), {rtol = 1e-5, atol = 1e-6}))
  end)

  it("has PyTorch's parameters", function()
    local names = {}
    for name in nn.MultiheadAttention(4, 2):named_parameters() do names[#names + 1] = name end
    assert.same({"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}, names)
    assert.equal(2, #nn.MultiheadAttention {4, 2, bias = false}:parameters())
  end)

  it("sees no padding", function()
    local m, x = nn.MultiheadAttention {8, 2, batch_first = true}, tide.randn(1, 4, 8)
    local padding = tide.tensor({{false, false, true, true}}, {dtype = "bool"})
    local y = m(x, nil, nil, nil, padding)
    local z = m(x:narrow(2, 1, 2))
    assert(y:narrow(2, 1, 2):allclose(z, {rtol = 1e-5, atol = 1e-6}))
  end)

  it("says what is wrong", function()
    fails_with(function() nn.MultiheadAttention(8, 3) end, "num_heads: expected a divisor of embed_dim 8, got 3")
    local m = nn.MultiheadAttention(8, 2)
    fails_with(function() m(tide.randn(5, 3, 7)) end, "MultiheadAttention: expected query (T, N, 8), got f32 (5, 3, 7)")
    fails_with(function() m(tide.randn(5, 3, 8), tide.randn(5, 2, 8)) end, "do not fit each other")
    fails_with(function() m(tide.randn(5, 3, 8), nil, nil, tide.ones(4, 5):gt(0)) end, "expected attn_mask (5, 5) or (6, 5, 5)")
    fails_with(function() m(tide.randn(5, 3, 8), nil, nil, nil, tide.ones(5, 3):gt(0)) end, "expected key_padding_mask (3, 5)")
  end)
end)

describe("nn.TransformerEncoderLayer", function()
  it("keeps the shape of x, and drops in training only", function()
    local m, x = nn.TransformerEncoderLayer(8, 2, {dim_feedforward = 16, batch_first = true}), tide.randn(3, 5, 8)
    assert.equal("(3, 5, 8)", shape(m(x)))
    assert.is_false(m(x):equal(m(x)))
    m:eval()
    assert.is_true(m(x):equal(m(x)))
  end)

  it("looks back only, when causal", function()
    local m = nn.TransformerEncoderLayer {8, 2, dim_feedforward = 16, dropout = 0, batch_first = true, is_causal = true, norm_first = true}
    local x = tide.randn(1, 6, 8)
    local y = m(x)
    x[{1, {4, 6}}] = 0
    assert(y:narrow(2, 1, 3):allclose(m(x):narrow(2, 1, 3), {rtol = 1e-5, atol = 1e-6}))
  end)

  it("says what is wrong with its options", function()
    fails_with(function() nn.TransformerEncoderLayer(8) end, "TransformerEncoderLayer", "nhead")
    fails_with(function() nn.TransformerEncoderLayer(8, 2, {activation = "tanh"}) end, "activation", "'relu' or 'gelu'")
    fails_with(function() nn.TransformerEncoderLayer(8, 2, {nhaed = 2}) end, "nhaed")
    fails_with(function() nn.TransformerEncoderLayer(8, 3) end, "num_heads")
  end)
end)

describe("nn.functional.attention", function()
  local F = nn.functional

  it("is the op, and draws what dropout keeps from the seed alone", function()
    tide.manual_seed(1)
    local q, k, v = tide.randn(2, 2, 40, 8), tide.randn(2, 2, 30, 8), tide.randn(2, 2, 30, 8)
    assert(F.attention(q, k, v):equal(attention(q, k, v)))
    assert(F.attention(q, k, v, {is_causal = true, scale = 0.5}):equal(attention(q, k, v, {is_causal = true, scale = 0.5})))
    local before, results = tide.get_num_threads(), {}
    for threads = 1, 2 do
      tide.set_num_threads(threads)
      tide.manual_seed(5)
      results[threads] = F.attention(q, k, v, {dropout = 0.4})
    end
    tide.set_num_threads(before)
    assert(results[1]:equal(results[2]))
    assert.is_false(results[1]:equal(F.attention(q, k, v, {dropout = 0.4})))
    assert.equal(0, F.attention(q, k, v, {dropout = 1}):abs():sum():item())
    fails_with(function() F.attention(q, k, v, {dropout = -1}) end, "attention: dropout: expected a number from 0 to 1")
    fails_with(function() F.attention(q, k, v, {droput = 0.1}) end, "attention: there is no option 'droput'")
  end)

  it("keeps the mean of what it drops from", function()
    tide.manual_seed(2)
    local q, k, v = tide.randn(1, 1, 8), tide.randn(1, 400, 8), tide.ones(1, 400, 1)
    local total = 0
    for _ = 1, 50 do total = total + F.attention(q * 0, k, v, {dropout = 0.5}):item() end
    assert.near(1, total / 50, 0.03)
  end)
end)

describe("nn.MultiheadAttention with dropout", function()
  it("drops in training only", function()
    tide.manual_seed(3)
    local m, x = nn.MultiheadAttention {8, 2, dropout = 0.5}, tide.randn(6, 3, 8)
    assert.is_false(m(x):equal(m(x)))
    m:eval()
    local plain = nn.MultiheadAttention(8, 2)
    plain:load_state_dict(m:state_dict())
    assert(m(x):equal(plain(x)))
  end)

  it("has right gradients with what was drawn", function()
    local m = nn.MultiheadAttention {4, 2, dropout = 0.3}:to "f64"
    assert(tide.gradcheck(function(x)
      tide.manual_seed(4)
      return m(x)
    end, {tide.randn(3, 2, 4):to "f64"}))
  end)
end)
