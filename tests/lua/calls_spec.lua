-- Every op, layer, loss and optimizer with thousands of drawn arguments, most of them wrong: each call gives a result or is one
-- clear error that names it. The draws repeat: they come from a generator of this file.
local tide = require "tide"
local core = require "tide.core"

local ROUNDS = sanitized and 3000 or 15000

local seed
local function draw(n) -- 1 .. n
  seed = seed ~ (seed << 13)
  seed = seed ~ (seed >> 7)
  seed = seed ~ (seed << 17)
  return (seed >> 1) % n + 1
end
local function pick(list) return list[draw(#list)] end

-- ---- arguments ----

local dtypes = {"f32", "f32", "f32", "f64", "f64", "f16", "bf16", "i64", "i64", "i32", "u8", "bool"}
local extents = {0, 1, 1, 2, 3, 4, 5, 7}
local likely = {0, 1, 1, 2, 2, 3, -1, -2, 4}
local odd = {0, 5, -100, 1 << 45, 1 << 50, 1 << 62, math.maxinteger, math.mininteger}
local numbers = {0, 1, -1, 0.5, 0.1, 2, 3, 1e30, -1e30, 1 / 0, -1 / 0, 0 / 0, 1e-300}
local equations = {"ij,jk->ik", "ij->ji", "i,i->", "...i->...", "ii->i", "ij,ij->ij", "a", "->", "bij,bjk->bik", "ij,jk", "ij->i"}

local function shape()
  local s = {}
  for i = 1, draw(5) - 1 do s[i] = pick(extents) end
  return s
end

--- A tensor of a shape, at times a view with other strides.
local function tensor(s)
  local dtype = pick(dtypes)
  local x = (dtype:find "f" and tide.randn(s) or tide.randint(0, dtype == "bool" and 2 or 5, s)):to(dtype)
  local how = draw(8)
  if how == 1 and x:dim() >= 2 then return x:transpose(1, -1) end
  if how == 2 and x:dim() >= 1 and x:size(1) > 1 then return x:slice(1, 1, 100, 2) end
  if how == 3 then return x:unsqueeze(1):expand(draw(3), table.unpack(x:shape())) end
  if how == 4 and x:dim() >= 1 and x:size(-1) >= 2 then return x:unfold(-1, 2, 1) end
  return x
end

local function integer() return draw(10) == 1 and pick(odd) or pick(likely) end
local function list(f)
  local t = {}
  for i = 1, pick {0, 1, 1, 2, 2, 3, 4, 9, 17} do t[i] = f() end
  return t
end

local values = {
  integer = integer, axis = integer, index = integer,
  number = function() return pick(numbers) end,
  boolean = function() return draw(2) == 1 end,
  dtype = function() return pick(dtypes) end,
  integers = function() return draw(3) == 1 and integer() or list(integer) end,
  numbers = function() return list(function() return pick(numbers) end) end,
}
values.axes = values.integers
function values.string(o)
  if not o.allowed then return pick(equations) end
  local words = {}
  for w in o.allowed:gmatch "[^|]+" do words[#words + 1] = w end
  return pick(words)
end

local function options(info)
  local o = {}
  for _, option in ipairs(info.options) do
    if option.required and draw(20) > 1 or draw(3) == 1 then
      if draw(25) == 1 then
        o[option.name] = pick {"x", {}, true, 1.5, print, -1, tide.ones(2)}
      else
        o[option.name] = values[option.type](option)
      end
    end
  end
  return o
end

--- Tensors for the places of a signature: mostly of one shape.
local function inputs(info)
  local common, args = shape(), {n = #info.inputs}
  for i, p in ipairs(info.inputs) do
    local s = draw(4) == 1 and shape() or common
    if draw(60) == 1 then
      args[i] = pick {"x", 5, 1.5, {}, true}
    elseif p.list then
      args[i] = {}
      for k = 1, draw(4) - 1 do args[i][k] = tensor(s) end
    elseif p.index and draw(10) > 1 then
      args[i] = tide.randint(draw(6) == 1 and 0 or 1, draw(4) + 1, s)
    elseif p.scalar then
      args[i] = tide.tensor(pick(numbers), {dtype = "f64"})
    elseif not (p.optional and draw(2) == 1) then
      args[i] = tensor(s)
      if draw(3) == 1 and (args[i].dtype == "f32" or args[i].dtype == "f64") then args[i] = args[i]:clone():requires_grad_() end
    end
  end
  return args
end

-- ---- what must hold ----

local function check_error(name, message)
  assert(type(message) == "string", name)
  assert(message:match "^%S+%.lua:%d+: ", "it has no line: " .. message)
  assert(not message:find "%c" and #message < 900, "it is not one line: " .. message)
  assert(message:lower():find(name:lower(), 1, true), ("it does not name %s: %s"):format(name, message))
end

--- Looks at a result; gradients flow or are refused clearly.
local function use(y)
  if type(y) == "table" and not tide.is_tensor(y) then
    for _, t in ipairs(y) do use(t) end
  elseif tide.is_tensor(y) and y:numel() < 100000 then
    tostring(y)
    if y.requires_grad and y:numel() > 0 then
      local ok, message = pcall(function() y:sum():backward() end)
      assert(ok or type(message) == "string" and not message:find "%c", message)
    end
  end
end

local function try(name, f, ...)
  local results = table.pack(pcall(f, ...))
  if not results[1] then return check_error(name, results[2]) end
  for i = 2, results.n do use(results[i]) end
  return true
end

local function settled()
  collectgarbage()
  collectgarbage()
  return tide.memory("cpu").current
end

describe("drawn arguments:", function()
  before_each(function()
    seed = 88172645463325252
    tide.manual_seed(1)
  end)

  it("ops", function()
    local names, good, before = core.layers "op", 0, settled()
    for round = 1, ROUNDS do
      local name = names[round % #names + 1]
      local info = core.op_info(name)
      local f, args, o = core.op(name), inputs(info), options(info)
      if next(o) then
        args.n = args.n + 1
        args[args.n] = o
      end
      if draw(10) == 1 and tide.is_tensor(args[1]) then
        local found, in_place = pcall(function() return args[1][name .. "_"] end)
        f = found and in_place or f
      end
      if try(name, f, table.unpack(args, 1, args.n)) then good = good + 1 end
    end
    assert.is_true(good > ROUNDS // 10)
    assert.is_true(settled() <= before + 4096)
  end)

  it("layers, losses and optimizers", function()
    local names, optimizers, good, before = core.layers "layer", core.layers "optim", 0, settled()
    for _, name in ipairs(core.layers "loss") do names[#names + 1] = name end
    for round = 1, ROUNDS // 3 do
      local name = names[round % #names + 1]
      local info = core.layer_info(name)
      local made, module = pcall(tide.nn[name], options(info))
      if not made then
        check_error(name, module)
      else
        tostring(module)
        for _ = 1, 3 do
          local args = inputs(info)
          if try(name, module, table.unpack(args, 1, args.n)) then good = good + 1 end
        end
        if #module:parameters() > 0 then
          local which = pick(optimizers)
          local ok, optimizer = pcall(tide.optim[which], module:parameters(), options(core.optim_info(which)))
          if ok then try(which, optimizer.step, optimizer) else check_error(which, optimizer) end
        end
      end
    end
    assert.is_true(good > ROUNDS // 10)
    assert.is_true(settled() <= before + 4096)
  end)
end)
