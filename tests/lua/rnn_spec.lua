-- Recurrent networks: shapes, states, directions, names, what is refused, and that kernels and definitions agree.
-- Values against PyTorch are in sequence_ref_spec.lua.
local tide = require "tide"
local nn = tide.nn

local kinds = {LSTM = 2, GRU = 1, RNN = 1} -- states of each
local function shape(t) return tostring(t:shape()) end

--- All results and gradients of a module on inputs: of a sum in which each element of each result has a weight of its own.
local function everything(m, inputs)
  local leaves = {}
  for i, x in ipairs(inputs) do leaves[i] = x:detach():clone():requires_grad_() end
  local results = {m(table.unpack(leaves))}
  local loss = 0
  for _, y in ipairs(results) do loss = loss + (y * tide.arange(1, y:numel() + 1):reshape(y:shape()):cos()):sum() end
  for _, p in ipairs(m:parameters()) do leaves[#leaves + 1] = p end
  for _, g in ipairs(tide.grad({loss}, leaves)) do results[#results + 1] = g end
  return results
end

local function agree(expected, got, tolerance)
  assert.equal(#expected, #got)
  for i, want in ipairs(expected) do
    assert(want:shape() == got[i]:shape(), ("%d: %s and %s"):format(i, want:shape(), got[i]:shape()))
    assert(want:allclose(got[i], {rtol = tolerance, atol = tolerance}),
      ("%d: expected %s, got %s"):format(i, tostring(want), tostring(got[i])))
  end
end

for kind, n_state in pairs(kinds) do
  describe("nn." .. kind, function()
    it("gives every h and the last states", function()
      local m = nn[kind](5, 7)
      local y, h, c = m(tide.randn(4, 3, 5))
      assert.equal("(4, 3, 7)", shape(y))
      assert.equal("(1, 3, 7)", shape(h))
      assert.equal(n_state == 2 and "(1, 3, 7)" or "nil", c and shape(c) or "nil")
      assert(h:select(1, 1):allclose(y:select(1, 4)))
    end)

    it("has the batch first where that is wanted", function()
      tide.manual_seed(1)
      local first, x = nn[kind] {5, 7, batch_first = true}, tide.randn(3, 4, 5)
      local y, h = first(x)
      assert.equal("(3, 4, 7)", shape(y))
      assert.equal("(1, 3, 7)", shape(h))
      local second = nn[kind](5, 7)
      second:load_state_dict(first:state_dict())
      assert(y:transpose(1, 2):allclose((second(x:transpose(1, 2))), {rtol = 1e-5, atol = 1e-6}))
    end)

    it("stacks layers and directions, named as PyTorch names them", function()
      local m = nn[kind] {3, 2, num_layers = 2, bidirectional = true}
      local y, h = m(tide.randn(4, 5, 3))
      assert.equal("(4, 5, 4)", shape(y))
      assert.equal("(4, 5, 2)", shape(h))
      local names = {}
      for name in m:named_parameters() do names[#names + 1] = name end
      assert.same({"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0",
                   "weight_ih_l0_reverse", "weight_hh_l0_reverse", "bias_ih_l0_reverse", "bias_hh_l0_reverse",
                   "weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1",
                   "weight_ih_l1_reverse", "weight_hh_l1_reverse", "bias_ih_l1_reverse", "bias_hh_l1_reverse"}, names)
      local gates = ({LSTM = 4, GRU = 3, RNN = 1})[kind]
      assert.equal(("(%d, 4)"):format(2 * gates), shape(m.weight_ih_l1))
    end)

    it("has the last state of the second direction at the first step", function()
      local m = nn[kind] {3, 2, bidirectional = true}
      local y, h = m(tide.randn(4, 5, 3))
      assert(h:select(1, 1):allclose(y:select(1, 4):narrow(2, 1, 2)))
      assert(h:select(1, 2):allclose(y:select(1, 1):narrow(2, 3, 2)))
    end)

    it("goes on from the states it gave", function()
      local m, x = nn[kind](3, 4), tide.randn(6, 2, 3)
      local whole = m(x)
      local front, h, c = m(x:narrow(1, 1, 2))
      local back = m(x:narrow(1, 3, 4), h, c)
      assert(whole:allclose(tide.cat({front, back}, 1), {rtol = 1e-5, atol = 1e-6}))
    end)

    it("takes one sequence without a batch", function()
      local m = nn[kind](3, 4)
      local x = tide.randn(5, 3)
      local y, h = m(x)
      assert.equal("(5, 4)", shape(y))
      assert.equal("(1, 4)", shape(h))
      assert(y:allclose(m(x:unsqueeze(2)):squeeze(2), {rtol = 1e-5, atol = 1e-6}))
    end)

    it("takes one step, and a batch of none", function()
      local m = nn[kind](3, 4)
      assert.equal("(1, 2, 4)", shape(m(tide.randn(1, 2, 3))))
      local y, h = m(tide.randn(5, 0, 3))
      assert.equal("(5, 0, 4)", shape(y))
      assert.equal("(1, 0, 4)", shape(h))
      y:sum():backward()
      assert.equal(0, m.weight_hh_l0.grad:abs():sum():item())
    end)

    it("drops between layers, in training only", function()
      local m = nn[kind] {3, 8, num_layers = 2, dropout = 0.5}
      local x = tide.randn(4, 2, 3)
      assert.is_false(m(x):equal((m(x))))
      m:eval()
      assert.is_true(m(x):equal((m(x))))
      assert.equal("(4, 2, 8)", shape(nn[kind] {3, 8, num_layers = 2, dropout = 1}(x)))
    end)

    it("agrees in f32 with its definition, at sizes beside those of vectors and blocks", function()
      for _, s in ipairs {{9, 13, 5, 19}, {3, 1, 4, 16}, {1, 5, 3, 8}, {2, 40, 33, 24}, {4, 7, 1, 1}, {17, 6, 20, 130}} do
        tide.manual_seed(2)
        local m, inputs = nn[kind] {s[3], s[4], bidirectional = true}, {tide.randn(s[1], s[2], s[3])}
        for i = 1, n_state do inputs[1 + i] = tide.randn(2, s[2], s[4]) end
        agree(by_definition(function() return everything(m, inputs) end), everything(m, inputs), 2e-4)
      end
    end)

    it("agrees with its definition where the batch is first and strides are odd", function()
      tide.manual_seed(3)
      local m = nn[kind] {6, 10, batch_first = true}
      for _, x in ipairs {tide.randn(5, 7, 6), tide.randn(7, 5, 6):transpose(1, 2), tide.randn(6, 7, 5):transpose(1, 3),
                          tide.randn(5, 14, 6):slice(2, 1, 14, 2)} do
        agree(by_definition(function() return everything(m, {x}) end), everything(m, {x}), 2e-4)
      end
    end)

    it("agrees with its definition where lines of x repeat: an embedding of few letters, one-hot rows, too many to gain", function()
      tide.manual_seed(8)
      local letters = tide.randint(1, 13, {19, 8})
      local one_hot = tide.zeros(12, 32)
      for i = 1, 12 do one_hot[i][i + 5] = 1 end
      for _, table_of in ipairs {tide.randn(12, 32), one_hot, tide.zeros(12, 32)} do
        for _, first in ipairs {false, true} do
          local m = nn[kind] {32, kind == "RNN" and 130 or 48, bidirectional = true, batch_first = first}
          local x = tide.embedding(table_of, letters)
          agree(by_definition(function() return everything(m, {x}) end), everything(m, {x}), 5e-4)
        end
      end
      local m, x = nn[kind](32, kind == "RNN" and 130 or 48), tide.embedding(tide.randn(12, 32), letters)
      for i = 1, 19 do x[i][1][1] = i end                -- 31 of 152 lines differ: more than an eighth
      agree(by_definition(function() return everything(m, {x}) end), everything(m, {x}), 5e-4)
    end)

    it("gives the same on one thread and on several", function()
      tide.manual_seed(4)
      local before = tide.get_num_threads()
      for _, x in ipairs {tide.randn(20, 32, 32), tide.embedding(tide.randn(9, 32), tide.randint(1, 10, {20, 32}))} do
        local m = nn[kind](32, 160)
        tide.set_num_threads(1)
        local one = everything(m, {x})
        tide.set_num_threads(2)
        local two = everything(m, {x})
        agree(one, two, 1e-4)
      end
      tide.set_num_threads(before)
    end)

    it("has right gradients, first and second", function()
      tide.manual_seed(5)
      local m = nn[kind](2, 3):to "f64"
      local names, inputs = {}, {tide.randn(3, 2, 2, {dtype = "f64"})}
      for i = 1, n_state do inputs[1 + i] = tide.randn(1, 2, 3, {dtype = "f64"}) end
      local n = #inputs
      for name, p in m:named_parameters() do
        names[#names + 1] = name
        inputs[#inputs + 1] = p:detach()
      end
      local function f(...)
        local given = {...}
        for i, name in ipairs(names) do m[name] = given[n + i] end
        return m(table.unpack(given, 1, n))
      end
      assert(tide.gradcheck(f, inputs))
      assert(tide.gradcheck(f, inputs, {second = true, atol = 1e-4}))
    end)

    it("asks for gradients of x only where they are wanted", function()
      local m, x = nn[kind](3, 4), tide.randn(5, 2, 3)
      m(x):sum():backward()
      assert.is_nil(x.grad)
      local g = m.weight_ih_l0.grad:clone()
      m:zero_grad()
      x:requires_grad_()
      m(x):sum():backward()
      assert.equal("(5, 2, 3)", shape(x.grad))
      assert(g:allclose(m.weight_ih_l0.grad))
    end)

    it("says what is wrong with its inputs", function()
      local m = nn[kind](3, 4)
      fails_with(function() m(tide.randn(5, 2, 7)) end, kind .. ": expected x (T, N, 3) or (T, 3), got f32 (5, 2, 7)")
      fails_with(function() m(tide.randn(5)) end, kind .. ": expected x (T, N, 3)")
      fails_with(function() nn[kind] {3, 4, batch_first = true}(tide.randn(5)) end, "expected x (N, T, 3)")
      fails_with(function() m(tide.randn(0, 2, 3)) end, kind .. ": expected at least one step")
      local wrong = {}
      for i = 1, n_state do wrong[i] = tide.randn(1, 3, 4) end
      fails_with(function() m(tide.randn(5, 2, 3), table.unpack(wrong)) end, kind .. ": expected h0 (1, 2, 4), got f32 (1, 3, 4)")
      fails_with(function() nn[kind](3) end, "hidden_size")
      fails_with(function() nn[kind] {3, 4, dropout = 2} end, "dropout")
    end)
  end)
end

for kind, n_state in pairs(kinds) do
  local name = kind .. "Cell"
  describe("nn." .. name, function()
    it("takes one step of the network of its kind", function()
      tide.manual_seed(10)
      local cell, whole = nn[name](5, 7), nn[kind](5, 7)
      local state = {}
      for p, v in pairs(cell:state_dict()) do state[p .. "_l0"] = v end
      whole:load_state_dict(state)
      local x, h, c = tide.randn(4, 3, 5), nil, nil
      local y, last, last_c = whole(x)
      for t = 1, 4 do
        h, c = cell(x:select(1, t), h, c)
        assert(y:select(1, t):allclose(h, {rtol = 1e-5, atol = 1e-6}))
      end
      assert(last:select(1, 1):allclose(h, {rtol = 1e-5, atol = 1e-6}))
      if n_state == 2 then assert(last_c:select(1, 1):allclose(c, {rtol = 1e-5, atol = 1e-6})) end
    end)

    it("takes one row, and a batch of none", function()
      local cell, x = nn[name](3, 4), tide.randn(3)
      local h = cell(x)
      assert.equal("(4)", shape(h))
      assert(h:allclose(cell(x:unsqueeze(1)):squeeze(1), {rtol = 1e-5, atol = 1e-6}))
      assert.equal("(0, 4)", shape(cell(tide.randn(0, 3))))
    end)

    it("says what is wrong with its inputs", function()
      local cell = nn[name](3, 4)
      fails_with(function() cell(tide.randn(2, 5)) end, name .. ": expected x (N, 3) or (3), got f32 (2, 5)")
      fails_with(function() cell(tide.randn(1, 2, 3)) end, name .. ": expected x (N, 3) or (3)")
      local wrong, short = {}, {}
      for i = 1, n_state do wrong[i], short[i] = tide.randn(3, 4), tide.randn(2, 4) end
      fails_with(function() cell(tide.randn(2, 3), table.unpack(wrong)) end, name .. ": expected h (2, 4), got f32 (3, 4)")
      fails_with(function() cell(tide.randn(3), table.unpack(short)) end, name .. ": expected h (4), got f32 (2, 4)")
      fails_with(function() nn[name](3) end, "hidden_size")
    end)
  end)
end

describe("nn.LSTM", function()
  it("wants both states or none", function()
    fails_with(function() nn.LSTM(3, 4)(tide.randn(5, 2, 3), tide.zeros(1, 2, 4)) end, "LSTM: expected both h0 and c0 or none of them")
    fails_with(function() nn.LSTMCell(3, 4)(tide.randn(2, 3), tide.zeros(2, 4)) end, "LSTMCell: expected both h and c or none of them")
  end)
end)

describe("ops lstm, gru and rnn", function()
  it("refuse weights that do not fit", function()
    local x = tide.randn(5, 2, 3)
    fails_with(function() tide.lstm(x, nil, nil, tide.randn(16, 3), tide.randn(15, 4)) end,
      "lstm: w_hh: expected (gates H, H) = (16, 4), got (15, 4)")
    fails_with(function() tide.lstm(x, nil, nil, tide.randn(16, 2), tide.randn(16, 4)) end,
      "lstm: w_ih: expected (gates H, I) = (16, 3), got (16, 2)")
    fails_with(function() tide.gru(x, tide.zeros(2, 3), tide.randn(12, 3), tide.randn(12, 4)) end,
      "gru: h0: expected (N, H) = (2, 4), got (2, 3)")
    fails_with(function() tide.rnn(x, nil, tide.randn(4, 3), tide.randn(4, 4), tide.randn(3)) end,
      "rnn: b_ih: expected shape (4), got (3)")
    fails_with(function() tide.rnn(tide.randn(5, 3), nil, tide.randn(4, 3), tide.randn(4, 4)) end, "rnn: x: expected 3 axes (T, N, I)")
    fails_with(function() tide.rnn(x:to "i64", nil, tide.ones(4, 3):to "i64", tide.ones(4, 4):to "i64") end, "rnn: expected a float dtype")
  end)

  it("follow the formula of the LSTM by hand", function()
    local w_ih, w_hh = tide.tensor {{0.5}, {-1}, {0.25}, {2}}, tide.tensor {{1}, {0.5}, {-0.5}, {0.1}}
    local y, h, c = tide.lstm(tide.tensor {{{1}}, {{-2}}}, nil, nil, w_ih, w_hh)
    local function sigmoid(v) return 1 / (1 + math.exp(-v)) end
    local function tanh(v) return (math.exp(2 * v) - 1) / (math.exp(2 * v) + 1) end
    local hh, cc, want = 0, 0, {}
    for t, x in ipairs {1, -2} do
      cc = sigmoid(-x + 0.5 * hh) * cc + sigmoid(0.5 * x + hh) * tanh(0.25 * x - 0.5 * hh)
      hh = sigmoid(2 * x + 0.1 * hh) * tanh(cc)
      want[t] = {{hh}}
    end
    assert_close(want, y)
    assert_close({{hh}}, h)
    assert_close({{cc}}, c)
  end)

  it("go backward through time with reverse", function()
    tide.manual_seed(6)
    local x, w_ih, w_hh = tide.randn(4, 2, 3), tide.randn(5, 3), tide.randn(5, 5)
    local y, h = tide.rnn(x:flip {1}, nil, w_ih, w_hh)
    local z, k = tide.rnn(x, nil, w_ih, w_hh, {reverse = true})
    assert(z:flip {1}:allclose(y, {rtol = 1e-5, atol = 1e-6}))
    assert(k:allclose(h, {rtol = 1e-5, atol = 1e-6}))
  end)

  it("keep huge sums and NaN in place", function()
    local w = tide.full({4, 1}, 1e30)
    local y = tide.lstm(tide.tensor {{{1}, {-1}, {0}}}, nil, nil, w, tide.zeros(4, 1))
    assert_close({{{0.7615942}, {0}, {0}}}, y, 1e-5)
    y = tide.gru(tide.tensor {{{0 / 0}, {1}}}, nil, tide.ones(3, 1), tide.ones(3, 1))
    assert.is_true(y:isnan():select(2, 1):all():item())
    assert.is_false(y:isnan():select(2, 2):any():item())
  end)
end)
