-- The kernels for plain, AVX2 and AVX-512 instructions compute the same, up to rounding; integers exactly.
local tide = require "tide"

--- Run in a process for each instruction set: saves what many ops give to the file that arg names.
local code = [[
  local tide = require "tide"
  local nn, out = tide.nn, {}
  tide.manual_seed(4)
  local function put(name, ...)
    for i, t in ipairs {...} do out[name .. " " .. i] = t:detach():contiguous() end
  end
  for _, dtype in ipairs {"f32", "f64", "f16", "bf16"} do
    local o = {dtype = dtype}
    local function p(name, ...) put(dtype .. " " .. name, ...) end
    -- odd extents: whole vectors and what is left over; values at which the approximations change branches
    local x, y = tide.randn(37, 67, o) * 3, tide.rand(37, 67, o) + 0.1
    local edges = tide.tensor({0, -0.0, 1e-6, -1e-6, 0.5, 0.69, 1, 2, 5, -5, 11, -11, 80, -80, 100, -100, 700, -700,
                               1 / 0, -1 / 0, 0 / 0, 3.14159, 1.5707963, 20, 1000, -1000, 6e-8, 1e-30, 12345.678}, o)
    for _, op in ipairs {"exp", "expm1", "sin", "cos", "tanh", "erf", "sigmoid", "silu", "gelu", "softplus", "elu", "leaky_relu",
                         "relu", "abs", "neg", "sign", "floor", "ceil", "round", "square", "isnan", "isfinite"} do
      p(op, tide[op](x), tide[op](edges), tide[op](x:t()), tide[op](x:slice(2, 1, 67, 3)))
    end
    for _, op in ipairs {"log", "log1p", "sqrt", "rsqrt", "reciprocal"} do p(op, tide[op](y), tide[op](edges:abs())) end
    for _, op in ipairs {"add", "sub", "mul", "div", "maximum", "minimum", "pow", "remainder", "floor_divide", "lt", "eq"} do
      local a = op == "pow" and y or x
      p(op, tide[op](a, y), tide[op](a, y:narrow(1, 1, 1)), tide[op](a, 1.5), tide[op](a:t(), y:t()), tide[op](a, y:narrow(2, 3, 1)))
    end
    for _, op in ipairs {"sum", "mean", "var", "amax", "amin", "logsumexp", "norm", "argmax"} do
      p(op, tide[op](x), tide[op](x, 1), tide[op](x, 2), tide[op](x:t(), 1))
    end
    p("cumsum", x:cumsum(1), x:cumsum(2))
    p("softmax", x:softmax(1), x:softmax(2), x:log_softmax(2))
    p("matmul", x:matmul(y:t()), x:t():matmul(y), x:matmul(y:select(1, 1)), tide.randn(5, 9, 7, o):matmul(tide.randn(5, 7, 11, o)),
      tide.randn(3, 2, o):matmul(tide.randn(2, 8, o)))
    p("where", tide.where(x:gt(0), x, y), x:clamp(-1, 1), x:masked_fill(y:gt(0.5), 7))
    p("sort", x:sort(2))
    p("cast", x:to "f32", x:to "f64", x:to "f16", x:to "bf16", x:to "i32", x:to "u8", x:to "bool")
    if dtype == "f32" or dtype == "f64" then
      local images = tide.randn(3, 6, 13, 11, o):requires_grad_()
      local function layer(name, m)
        m:to(dtype)
        local z = m(images)
        local list = {z}
        local inputs = {images, table.unpack(m:parameters())}
        for _, g in ipairs(tide.grad({(z * z):sum()}, inputs)) do list[#list + 1] = g end
        p(name, table.unpack(list))
      end
      layer("conv 3x3", nn.Conv2d {6, 9, 3, padding = 1})
      layer("conv 5x5 stride", nn.Conv2d {6, 4, 5, stride = 2})
      layer("conv groups", nn.Conv2d {6, 12, 3, groups = 3, dilation = 2})
      layer("conv 1x1", nn.Conv2d {6, 17, 1})
      layer("conv transposed", nn.ConvTranspose2d {6, 5, 3, stride = 2})
      layer("max pool", nn.MaxPool2d(2))
      layer("avg pool", nn.AvgPool2d(3, 2))
      layer("adaptive pool", nn.AdaptiveAvgPool2d(4))
      layer("batch norm", nn.BatchNorm2d(6))
      layer("layer norm", nn.LayerNorm {11})
      layer("linear", nn.Linear(11, 19))
      local steps = tide.randn(9, 13, 11, o)
      for _, kind in ipairs {"LSTM", "GRU", "RNN"} do
        local m = nn[kind](11, 21):to(dtype)
        local z = m(steps)
        p(kind, z, table.unpack(tide.grad({(z * z):sum()}, m:parameters())))
      end
      local q, k, v = tide.randn(2, 3, 50, 19, o), tide.randn(2, 3, 70, 19, o), tide.randn(2, 3, 70, 8, o)
      for _, t in ipairs {q, k, v} do t:requires_grad_() end
      local z = tide.scaled_dot_product_attention(q, k, v, {is_causal = true})
      p("attention", z, table.unpack(tide.grad({(z * z):sum()}, {q, k, v})))
      local target = tide.randint(1, 67, {37})
      p("cross entropy", nn.CrossEntropyLoss()(x, target), nn.NLLLoss()(x, target))
    end
  end
  for _, dtype in ipairs {"i64", "i32", "u8"} do
    local x, y = tide.randint(0, 50, {23, 45}):to(dtype), tide.randint(1, 9, {23, 45}):to(dtype)
    put(dtype, x + y, x * y, x - y, x // y, x % y, x:maximum(y), x:sum(), x:sum(1), x:prod(2), x:amax(2), x:argmin(2), x:cumsum(2),
      x:lt(y), x:matmul(y:t()), x:sort(1), x:unique(), x:to "f32", tide.where(x:gt(20), x, y))
  end
  for _, name in ipairs {"SGD", "Adam", "AdamW", "RMSprop"} do
    local w = tide.linspace(-1, 1, 103):requires_grad_()
    local optimizer = tide.optim[name]({w}, {lr = 0.01, weight_decay = 0.1})
    for _ = 1, 5 do
      optimizer:zero_grad();
      (w * w * w):sum():backward()
      optimizer:step()
    end
    put(name, w)
  end
  tide.save(out, PATH)
]]

local tolerance = {f64 = 1e-11, f32 = 1e-4, f16 = 4e-3, bf16 = 3e-2}

local function compare(name, a, b)
  assert(a:shape() == b:shape() and a.dtype == b.dtype, name)
  local t = tolerance[a.dtype]
  if not t then return assert(a:equal(b), name) end
  a, b = a:to "f64", b:to "f64"
  local odd = a:isfinite():logical_not()
  assert(a:isnan():equal(b:isnan()) and a:eq(b):logical_or(a:isnan()):logical_or(a:isfinite()):all():item(), name)
  a, b = a:masked_fill(odd, 0), b:masked_fill(odd, 0)
  local scale = math.max(1, a:abs():mean():item())
  if not a:allclose(b, {rtol = t, atol = t * scale}) then
    local far = (a - b):abs():amax():item()
    error(("%s: results differ by %g"):format(name, far))
  end
end

describe("instruction sets agree:", function()
  local results, missing = {}, {}
  local function run(isa)
    local path = os.tmpname()
    local output, status = tide_process(code:gsub("PATH", function() return ("%q"):format(path) end), "TIDE_CPU_ISA=" .. isa)
    if status == 0 then
      results[isa] = tide.load(path)
    else
      missing[isa] = output:find("does not have these instructions", 1, true) and "not on this processor" or output
    end
    os.remove(path)
  end
  setup(function() for _, isa in ipairs {"plain", "avx2", "avx512"} do run(isa) end end)

  it("plain runs everywhere", function() assert(results.plain, missing.plain) end)
  for _, isa in ipairs {"avx2", "avx512"} do
    it(isa .. " and plain", function()
      if missing[isa] == "not on this processor" then return pending(missing[isa]) end
      assert(results[isa], missing[isa])
      local n, wrong = 0, {}
      for name, a in pairs(results.plain) do
        n = n + 1
        local ok, message = pcall(compare, name, a, results[isa][name])
        if not ok then wrong[#wrong + 1] = message end
      end
      table.sort(wrong)
      assert(#wrong == 0, "\n" .. table.concat(wrong, "\n"))
      assert.is_true(n > 400)
    end)
  end
  it("an unknown one is refused with the names that there are", function()
    local output, status = tide_process("require 'tide'.ones(1)", "TIDE_CPU_ISA=mmx")
    assert.not_equal(0, status)
    assert.truthy(output:find("TIDE_CPU_ISA", 1, true) and output:find("mmx", 1, true) and output:find("plain", 1, true), output)
  end)
end)
