-- Modules: fields, names, modes, saving, containers, functional forms, initialisation, printing.
local tide = require "tide"
local nn, F = tide.nn, tide.nn.functional

local Block = nn.Module:extend "Block"
function Block:init(n)
  self.first, self.second = nn.Linear(n, n), nn.Linear(n, n)
  self.scale = nn.Parameter(tide.ones(1))
end
function Block:forward(x) return self.second(self.first(x):relu()) * self.scale + x end

local function names_of(iterator, ...)
  local names = {}
  for name in iterator, ... do names[#names + 1] = name end
  return names
end

describe("nn.Module", function()
  it("names parameters by fields, in the order in which they were made", function()
    assert.same({"scale", "first.weight", "first.bias", "second.weight", "second.bias"}, names_of(Block(2):named_parameters()))
    local Two = nn.Module:extend "Two"
    function Two:init() self.a, self.b, self.c = nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2) end
    assert.same({"a", "b", "c"}, names_of(Two():children()))
  end)

  it("counts a module that is used twice once", function()
    local Twice = nn.Module:extend "Twice"
    function Twice:init() self.a = nn.Linear(2, 2) self.b = self.a end
    assert.equal(6, Twice():num_parameters())
    assert.equal(2, #Twice():parameters())
  end)

  it("counts a shared tensor once, and trains it as one", function()
    local net = nn.Sequential(nn.Linear(3, 3, {bias = false}), nn.Linear(3, 3, {bias = false}))
    net[2].weight = net[1].weight
    assert.equal(1, #net:parameters())
    net(tide.ones(1, 3)):sum():backward()
    assert.is_true(net[2].weight.grad:equal(net[1].weight.grad))
  end)

  it("keeps a frozen parameter in its state", function()
    local block = Block(2)
    block:requires_grad_(false)
    assert.equal(5, #block:parameters())
    assert.truthy(block:state_dict().scale)
  end)

  it("takes buffers that are saved but not trained", function()
    local net = nn.Module:extend "Net"()
    net:register_buffer("mean", tide.zeros(3))
    net:register_buffer("scratch", tide.zeros(3), {persistent = false})
    assert.equal(0, #net:parameters())
    assert.equal(2, #net:buffers())
    assert.truthy(net:state_dict().mean)
    assert.is_nil(net:state_dict().scratch)
  end)

  it("passes train and eval on to all below", function()
    local net = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    local x = tide.ones(100)
    net:eval()
    assert.is_false(net[2][1].training)
    assert.is_true(net(x):equal(x))
    net:train()
    assert.is_true(net[2][1].training)
    assert.is_false(net(x):equal(x))
  end)

  it("moves to a dtype and keeps its tensors' identity", function()
    local net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    local before = net:parameters()
    net:to "f64"
    assert.equal("f64", before[1].dtype)
    assert.is_true(before[1].requires_grad)
    assert.equal("i64", net[2].num_batches_tracked.dtype)
    assert.equal("f64", net(tide.randn(2, 1, 5, 5, {dtype = "f64"})).dtype)
  end)

  it("applies a function to all modules, the deepest first", function()
    local seen = {}
    nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh())):apply(function(m) seen[#seen + 1] = m.__name end)
    assert.same({"Tanh", "Sequential", "ReLU", "Sequential"}, seen)
  end)

  it("gives all modules with their names", function()
    local net = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh()))
    assert.same({"", "1", "2", "2.1"}, names_of(net:named_modules()))
  end)

  it("restores what state_dict gave", function()
    local a, b = Block(3), Block(3)
    b:load_state_dict(a:state_dict())
    local x = tide.randn(2, 3)
    assert.is_true(a(x):equal(b(x)))
  end)

  it("lists what does not fit when a state is loaded, and changes nothing", function()
    local net = Block(2)
    local state = Block(2):state_dict()
    state["first.weight"], state.more, state["second.bias"] = tide.zeros(3, 2), tide.zeros(1), nil
    local before = net.first.weight:detach():clone()
    fails_with(function() net:load_state_dict(state) end, "other shapes: first.weight (expected f32 (2, 2), got f32 (3, 2))",
               "missing: second.bias", "unexpected: more")
    assert.is_true(before:equal(net.first.weight))
    state["first.weight"] = nil
    local missing, unexpected = net:load_state_dict(state, {strict = false})
    assert.equal(2, #missing)
    assert.same({"more"}, unexpected)
  end)

  it("clones with tensors of its own", function()
    local net = nn.Sequential(nn.Linear(2, 2), Block(2))
    local copy = net:clone()
    local x = tide.randn(1, 2)
    assert.is_true(net(x):equal(copy(x)))
    tide.no_grad(function() copy[1].weight:zero_() end)
    assert.is_false(net(x):equal(copy(x)))
  end)

  it("refuses to hold itself", function()
    local net = Block(2)
    net.again = nn.Sequential(net)
    fails_with(function() net:parameters() end, "cannot hold itself", "again.1")
    fails_with(function() tostring(net) end, "cannot hold itself")
  end)

  it("without a forward says so", function()
    fails_with(function() nn.Module:extend "Empty"()(1) end, "Empty", "forward")
  end)

  it("may be extended again", function()
    local Sub = Block:extend "Sub"
    function Sub:forward(x) return Block.forward(self, x) * 2 end
    local sub, x = Sub(2), tide.ones(1, 2)
    assert.is_true(sub(x):allclose(Block.forward(sub, x) * 2))
  end)

  it("evaluates on a dataset and keeps its mode", function()
    local net = nn.Sequential(nn.Dropout(0.9), nn.Identity())
    local scores = tide.tensor {{1, 0}, {0, 1}, {1, 0}, {1, 0}}
    local set = tide.data.TensorDataset(scores, tide.tensor({1, 2, 1, 2}, {dtype = "i64"}))
    local result = net:evaluate(set, {batch = 3, criterion = nn.CrossEntropyLoss()})
    assert.equal(0.75, result.accuracy)
    assert.equal(4, result.count)
    assert.near((3 * math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 4, result.loss, 1e-6)
    assert.is_true(net.training)
  end)
end)

describe("an error inside nested modules", function()
  it("names the path through fields and places", function()
    local Net = nn.Module:extend "Net"
    function Net:init() self.features = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 3), nn.Conv2d(1, 1, 1))) end
    function Net:forward(x) return self.features(x) end
    fails_with(function() Net()(tide.ones(1, 2)) end, "nn_spec.lua:", "in Net.features[2][2] Conv2d: expected x (N, 1, H, W)")
  end)

  it("is not blamed on a layer that ran before", function()
    local Net = nn.Module:extend "Net"
    function Net:init() self.ok = nn.ReLU() end
    function Net:forward(x) return self.ok(x):matmul(tide.ones(7, 7)) end
    local message = fails_with(function() Net()(tide.ones(1, 2)) end, "matmul")
    assert.is_nil(message:find("ReLU", 1, true))
  end)

  it("names a module of one's own that failed", function()
    local Bad = nn.Module:extend "Bad"
    function Bad:forward(x) return self.nothing(x) end
    fails_with(function() nn.Sequential(nn.ReLU(), Bad())(tide.ones(1)) end, "in Sequential[2] Bad: ", "nothing")
  end)
end)

describe("containers", function()
  it("Sequential runs its modules in order, and grows", function()
    local net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    assert.equal(2, #net)
    net:append(nn.Linear(3, 1))
    assert.equal(3, #net)
    assert.same({4, 1}, {table.unpack(net(tide.ones(4, 2)):shape())})
    assert.equal("Linear", net[3].__name)
    local x = tide.ones(2)
    assert.is_true(nn.Sequential()(x):equal(x))
    assert.equal(2, #nn.Sequential {nn.ReLU(), nn.ReLU()})
  end)

  it("Sequential names what is no module", function()
    fails_with(function() nn.Sequential(nn.ReLU(), 3) end, "Sequential", "[2]", "a module")
    fails_with(function() nn.Sequential(nn.ReLU) end, "[1]", "a module")
  end)

  it("ModuleList holds modules for loops", function()
    local list = nn.ModuleList {nn.Linear(1, 1), nn.Linear(1, 2)}
    local n = 0
    for i, m in ipairs(list) do n = n + i * m:options().out_features end
    assert.equal(5, n)
    assert.equal(4, #list:parameters())
    fails_with(function() list(1) end, "ModuleList")
  end)

  it("ModuleDict holds modules by name", function()
    local dict = nn.ModuleDict {a = nn.Linear(1, 1), b = nn.ReLU()}
    assert.equal("ReLU", dict.b.__name)
    assert.equal("Linear", dict:get "a".__name)
    assert.same({"a.weight", "a.bias"}, names_of(dict:named_parameters()))
    fails_with(function() dict:put("c.d", nn.ReLU()) end, "dots")
  end)
end)

describe("a C layer", function()
  it("takes options by place, by name, or all in one table", function()
    local a = nn.Linear(3, 4, {bias = false})
    local b = nn.Linear {3, 4, bias = false}
    local c = nn.Linear {in_features = 3, out_features = 4, bias = false}
    for _, layer in ipairs {a, b, c} do
      assert.same({bias = false, in_features = 3, out_features = 4}, layer:options())
    end
  end)

  it("prints its options where they are not at their defaults", function()
    assert.equal("Conv2d(1, 32, 5, padding = 2)", tostring(nn.Conv2d(1, 32, 5, {padding = 2})))
    assert.equal("BatchNorm2d(3, momentum = none)", tostring(nn.BatchNorm2d(3, {momentum = "none"})))
    assert.equal("ReLU()", tostring(nn.ReLU()))
  end)

  it("starts uniform in one over the root of its inputs", function()
    tide.manual_seed(3)
    local w = nn.Linear(100, 200).weight
    assert.is_true(w:abs():amax():item() <= 0.1)
    assert.near(0.1 / math.sqrt(3), w:std():item(), 1e-3)
  end)

  it("draws the same parameters from the same seed", function()
    tide.manual_seed(5)
    local a = nn.Conv2d(2, 3, 3)
    tide.manual_seed(5)
    assert.is_true(a.weight:equal(nn.Conv2d(2, 3, 3).weight))
  end)

  it("cannot be extended", function()
    fails_with(function() nn.Linear:extend "Mine" end, "Linear", "C layer")
  end)

  it("with a wrong name suggests the right one", function()
    fails_with(function() return nn.Conv2D end, "Conv2D", "did you mean 'Conv2d'?")
  end)

  it("BatchNorm2d follows mean and unbiased variance, and uses them in evaluation", function()
    local norm, x = nn.BatchNorm2d(1), tide.tensor {{{{1, 2, 3, 4}}}}
    norm(x)
    assert.near(0.25, norm.running_mean[1]:item(), 1e-6)
    assert.near(0.9 + 0.1 * 5 / 3, norm.running_var[1]:item(), 1e-5)
    assert.equal(1, norm.num_batches_tracked:item())
    norm:eval()
    local y = norm(x):reshape {-1}
    assert.near((1 - 0.25) / math.sqrt(0.9 + 0.5 / 3 + 1e-5), y[1]:item(), 1e-5)
    assert.equal(1, norm.num_batches_tracked:item())
  end)

  it("BatchNorm2d without momentum keeps the plain mean", function()
    local norm = nn.BatchNorm2d(1, {momentum = "none"})
    norm(tide.tensor {{{{0, 2}}}})
    norm(tide.tensor {{{{4, 8}}}})
    assert.near(3.5, norm.running_mean[1]:item(), 1e-6)
    assert.near(5, norm.running_var[1]:item(), 1e-5)
  end)

  it("BatchNorm2d refuses to train on one value a channel", function()
    fails_with(function() nn.BatchNorm2d(2)(tide.ones(1, 2, 1, 1)) end, "more than one value per channel")
  end)

  it("Embedding keeps its padding row at zero", function()
    local e = nn.Embedding(4, 3, {padding_idx = 2})
    local i = tide.tensor({1, 2, 2}, {dtype = "i64"})
    assert.equal(0, e(i)[2]:abs():sum():item())
    e(i):sum():backward()
    assert.same({1, 0, 0, 0}, e.weight.grad:select(2, 1):totable())
    assert.equal(0, nn.Embedding(4, 3, {padding_idx = -1}).weight[4]:abs():sum():item())
    fails_with(function() nn.Embedding(4, 3, {padding_idx = 5}) end, "padding_idx")
  end)

  it("Flatten leaves the batch alone", function()
    assert.same({2, 60}, {table.unpack(nn.Flatten()(tide.ones(2, 3, 4, 5)):shape())})
  end)
end)

describe("losses", function()
  local x = tide.tensor {{2, 0, 1}, {0, 3, 0}}
  local t = tide.tensor({1, 2}, {dtype = "i64"})

  it("CrossEntropyLoss weighs its mean by class weights, given as numbers or as a tensor", function()
    local plain = nn.CrossEntropyLoss {reduction = "none"}(x, t):totable()
    local expected = (plain[1] * 3 + plain[2] * 1) / 4
    assert.near(expected, nn.CrossEntropyLoss {weight = {3, 1, 1}}(x, t):item(), 1e-6)
    local loss = nn.CrossEntropyLoss {weight = tide.tensor {3, 1, 1}}
    assert.near(expected, loss(x, t):item(), 1e-6)
    assert.equal(1, #loss:buffers())
    assert.near(expected, F.cross_entropy(x, t, {weight = tide.tensor {3, 1, 1}}):item(), 1e-6)
    fails_with(function() nn.CrossEntropyLoss {weight = {3, 1}}(x, t) end, "CrossEntropyLoss", "3 classes")
  end)

  it("CrossEntropyLoss leaves out ignored targets", function()
    local plain = nn.CrossEntropyLoss {reduction = "none"}(x, t):totable()
    local some = tide.tensor({1, -100}, {dtype = "i64"})
    assert.near(plain[1], nn.CrossEntropyLoss()(x, some):item(), 1e-6)
    assert.near(plain[2], nn.CrossEntropyLoss {ignore_index = 1}(x, t):item(), 1e-6)
    local none = nn.CrossEntropyLoss()(x, tide.tensor({-100, -100}, {dtype = "i64"})):item()
    assert.is_true(none ~= none)
  end)

  it("NLLLoss of LogSoftmax is CrossEntropyLoss", function()
    assert.near(nn.CrossEntropyLoss()(x, t):item(), nn.NLLLoss()(nn.LogSoftmax(2)(x), t):item(), 1e-6)
  end)

  it("BCELoss takes 0 and 1 and has PyTorch's values and slopes there", function()
    local p = tide.tensor({0.0, 1.0, 0.0}, {requires_grad = true})
    local loss = nn.BCELoss {reduction = "sum"}(p, tide.tensor {0.0, 1.0, 1.0})
    assert.near(100, loss:item(), 1e-4)
    loss:backward()
    assert.near(-1e12, p.grad[3]:item(), 1e6)
  end)

  it("BCEWithLogitsLoss takes one weight, or one for each class, of positives", function()
    local s, y = tide.tensor {{0.5, -1}, {2, 0}}, tide.tensor {{1.0, 0}, {1, 1}}
    local one = nn.BCEWithLogitsLoss {pos_weight = 2}(s, y):item()
    local many = nn.BCEWithLogitsLoss {pos_weight = {2, 2}}(s, y):item()
    assert.near(one, many, 1e-6)
    fails_with(function() nn.BCEWithLogitsLoss {pos_weight = {1, 2, 3}}(s, y) end, "pos_weight")
  end)

  it("refuse shapes that would be broadcast", function()
    for _, name in ipairs {"MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "BCELoss", "BCEWithLogitsLoss"} do
      fails_with(function() nn[name]()(tide.ones(4, 1), tide.ones(4)) end, name, "(4, 1)", "(4)")
    end
  end)
end)

describe("nn.functional", function()
  it("has the ops and the losses", function()
    local x = tide.randn(2, 3)
    assert.is_true(F.relu(x):equal(nn.ReLU()(x)))
    assert.is_true(F.softmax(x, 2):equal(nn.Softmax(2)(x)))
    assert.equal(nn.MSELoss()(x, x + 1):item(), F.mse_loss(x, x + 1):item())
    assert.equal(6, F.mse_loss(x, x + 1, {reduction = "sum"}):item())
    assert.is_true(F.dropout(x, 0.5, false):equal(x))
  end)

  it("suggests a name", function()
    fails_with(function() return F.rellu end, "did you mean 'relu'")
  end)
end)

describe("nn.init", function()
  it("fills in place, without recording", function()
    local w = nn.Parameter(tide.zeros(30, 20))
    assert.equal(w, nn.init.uniform(w, 2, 3))
    assert.is_true(w:amin():item() >= 2 and w:amax():item() < 3)
    assert.is_true(w.is_leaf and w.requires_grad)
    assert.equal(7, nn.init.constant_(w, 7):mean():item())
  end)

  it("knows fans and gains", function()
    local fan_in, fan_out = nn.init.fans(tide.zeros(8, 4, 3, 3))
    assert.same({36, 72}, {fan_in, fan_out})
    assert.near(math.sqrt(2), nn.init.gain "relu", 1e-12)
    tide.manual_seed(1)
    local w = nn.init.kaiming_normal(tide.zeros(400, 300), {nonlinearity = "relu"})
    assert.near(math.sqrt(2 / 300), w:std():item(), 1e-3)
    w = nn.init.xavier_uniform(tide.zeros(400, 300))
    assert.near(math.sqrt(6 / 700), w:abs():amax():item(), 1e-3)
    fails_with(function() nn.init.kaiming_normal(tide.zeros(3)) end, "(out, in, ...)")
  end)

  it("makes orthogonal rows", function()
    tide.manual_seed(2)
    local w = nn.init.orthogonal(tide.zeros(5, 8), 2)
    assert.is_true(w:matmul(w:t()):allclose(tide.eye(5) * 4, {atol = 1e-5}))
    w = nn.init.orthogonal(tide.zeros(8, 5))
    assert.is_true(w:t():matmul(w):allclose(tide.eye(5), {atol = 1e-5}))
  end)
end)

describe("nn.utils", function()
  it("clips the norm of all gradients together", function()
    local a, b = nn.Parameter(tide.zeros(1)), nn.Parameter(tide.zeros(1))
    ;(a * 3 + b * 4):sum():backward()
    assert.near(5, nn.utils.clip_grad_norm_({a, b}, 1):item(), 1e-5)
    assert.near(0.6, a.grad:item(), 1e-5)
    nn.utils.clip_grad_norm_({a, b}, 10)
    assert.near(0.6, a.grad:item(), 1e-5)
    nn.utils.clip_grad_value_({a, b}, 0.7)
    assert.near(0.7, b.grad:item(), 1e-6)
  end)

  it("turns parameters into a vector and back", function()
    local net = nn.Linear(2, 3)
    local v = nn.utils.parameters_to_vector(net:parameters())
    assert.equal(9, v:numel())
    nn.utils.vector_to_parameters(v * 0 + 2, net:parameters())
    assert.equal(18, nn.utils.parameters_to_vector(net:parameters()):sum():item())
  end)
end)

describe("tostring", function()
  it("shows the tree with shapes and counts, when the input's size can be told", function()
    local text = tostring(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 13 * 13, 10)))
    assert.truthy(text:find("[1] Conv2d(1, 4, 3)", 1, true))
    assert.truthy(text:find("(N, 4, 26, 26)", 1, true))
    assert.truthy(text:find("6,770", 1, true))
    assert.truthy(text:find("6,810 parameters", 1, true))
  end)

  it("shows no shapes where any size will do", function()
    local text = tostring(nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)))
    assert.is_nil(text:find("(N,", 1, true))
  end)

  it("shows them after summary, and leaves modes and random numbers alone", function()
    local net = nn.Sequential(nn.Dropout(0.5), Block(2))
    tide.manual_seed(9)
    local text = net:summary {5, 2}
    local u = tide.random()
    tide.manual_seed(9)
    assert.equal(u, tide.random())
    assert.truthy(text:find("(N, 2)", 1, true))
    assert.is_true(net.training)
    assert.truthy(text:find("second = Linear(2, 2)", 1, true))
  end)
end)
