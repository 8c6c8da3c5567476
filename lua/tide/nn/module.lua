--- The base of all layers and networks: fields that hold parameters and other modules, and what can be done with all of them.
---
---     local Net = nn.Module:extend "Net"
---     function Net:init(width) self.first, self.last = nn.Linear(2, width), nn.Linear(width, 1) end
---     function Net:forward(x) return self.last(self.first(x):tanh()) end
---     local net = Net(16)
local core = require "tide.core"
local path = require "tide.nn.path"
local util = require "tide.util"
local fail = util.fail

---@class tide.nn.Module
---@field training boolean   whether the module is in training mode; set by train() and eval()
---@overload fun(...): any
local Module = {__name = "Module"}
Module.__index = Module

local META = {}                                          -- key of what the module knows of itself
local is_tensor = core.is_tensor
local created = 0                                        -- modules and parameters so far: their serial numbers
local parameter_serial = setmetatable({}, {__mode = "k"})

--- What a module knows of itself: the order of its fields, which are parameters and buffers, when it was made.
local function meta_of(self) return rawget(self, META) end

local function is_module(x) return type(x) == "table" and rawget(x, META) ~= nil end

local function finish(self, ok, ...)
  if ok then return ... end
  error(path.extend(self, (...)), 0)
end

local function call(self, ...)
  return finish(self, pcall(self.forward, self, ...))
end

-- ---- fields ----

--- A field gets a value for the first time: its place in the order of fields is noted.
local function new_field(self, key, value)
  local meta = meta_of(self)
  if meta and key ~= META then
    if meta.buffers[key] == nil and is_tensor(value) and value.requires_grad and value.is_leaf then meta.params[key] = true end
    if not meta.place[key] then
      meta.n = meta.n + 1
      meta.place[key] = meta.n
    end
  end
  rawset(self, key, value)
end

--- `a, b = X(), Y()` assigns from right to left, so modules and nn.Parameters come in the order in which they were made,
--- other fields before them in the order of assignment.
local function fields_in_order(self)
  local meta, keys = meta_of(self), {}
  for key in next, self do
    if key ~= META and (type(key) == "string" or math.type(key) == "integer") then keys[#keys + 1] = key end
  end
  local rank = {}
  for _, key in ipairs(keys) do
    local value = self[key]
    rank[key] = is_module(value) and meta_of(value).serial or parameter_serial[value] or 0
  end
  table.sort(keys, function(a, b)
    if math.type(a) ~= math.type(b) then return type(a) == "number" end
    if type(a) == "number" then return a < b end
    if rank[a] ~= rank[b] then return rank[a] < rank[b] end
    local pa, pb = meta.place[a] or math.huge, meta.place[b] or math.huge
    if pa ~= pb then return pa < pb end
    return a < b
  end)
  return keys
end

--- The module's own tensors, in order: {name =, tensor =, is_buffer =}. C layers have their own version.
---@return table[]
function Module:own_tensors()
  local meta, list = meta_of(self), {}
  for _, key in ipairs(fields_in_order(self)) do
    local value = self[key]
    if is_tensor(value) then
      if meta.buffers[key] then
        list[#list + 1] = {name = tostring(key), tensor = value, is_buffer = true, volatile = meta.buffers[key] == "volatile"}
      elseif meta.params[key] or value.requires_grad and value.is_leaf then
        meta.params[key] = true                          -- stays a parameter when it is frozen
        list[#list + 1] = {name = tostring(key), tensor = value, is_buffer = false}
      end
    end
  end
  return list
end

--- The modules that this one holds itself: iterates over name, module.
---@return fun(): string?, tide.nn.Module?
function Module:children()
  local list, i = {}, 0
  for _, key in ipairs(fields_in_order(self)) do
    if is_module(self[key]) then list[#list + 1] = {tostring(key), self[key]} end
  end
  return function()
    i = i + 1
    if list[i] then return list[i][1], list[i][2] end
  end
end

--- Visits this module and all below it, each once, parents first. A module that holds itself is an error.
local function walk(self, visit)
  local seen, above = {}, {}
  local function go(m, prefix)
    if above[m] then
      fail("%s: a module cannot hold itself: %s is %s again", self.__name, prefix:sub(1, -2), m.__name)
    end
    if seen[m] then return end
    seen[m], above[m] = true, true
    visit(m, prefix)
    for name, child in m:children() do go(child, prefix .. name .. ".") end
    above[m] = nil
  end
  go(self, "")
end

--- Every tensor below, with its full name; a tensor that has several names comes once unless `all`.
local function tensors_of(self, all)
  local list, seen = {}, {}
  walk(self, function(m, prefix)
    for _, own in ipairs(m:own_tensors()) do
      local id = core.identity(own.tensor)
      if all or not seen[id] then
        list[#list + 1] = {name = prefix .. own.name, tensor = own.tensor, is_buffer = own.is_buffer, volatile = own.volatile}
      end
      seen[id] = true
    end
  end)
  return list
end

--- Iterator over name, tensor of what `keep` says.
local function named(self, keep)
  local list, i = tensors_of(self), 0
  return function()
    repeat i = i + 1 until not list[i] or keep(list[i])
    if list[i] then return list[i].name, list[i].tensor end
  end
end

local function is_parameter(t) return not t.is_buffer end
local function is_buffer(t) return t.is_buffer end

--- Iterates over name, parameter, of this module and all below. A shared parameter comes once.
---@return fun(): string?, tide.Tensor?
function Module:named_parameters() return named(self, is_parameter) end

--- The list of all parameters: what optimizers take.
---@return tide.Tensor[]
function Module:parameters()
  local list = {}
  for _, p in self:named_parameters() do list[#list + 1] = p end
  return list
end

--- Iterates over name, buffer, of this module and all below.
---@return fun(): string?, tide.Tensor?
function Module:named_buffers() return named(self, is_buffer) end

--- The list of all buffers.
---@return tide.Tensor[]
function Module:buffers()
  local list = {}
  for _, b in self:named_buffers() do list[#list + 1] = b end
  return list
end

--- Iterates over name, module: this one under "" and all below, each once.
---@return fun(): string?, tide.nn.Module?
function Module:named_modules()
  local list, i = {}, 0
  walk(self, function(m, prefix) list[#list + 1] = {prefix:sub(1, -2), m} end)
  return function()
    i = i + 1
    if list[i] then return list[i][1], list[i][2] end
  end
end

--- The list of this module and all below.
---@return tide.nn.Module[]
function Module:modules()
  local list = {}
  walk(self, function(m) list[#list + 1] = m end)
  return list
end

--- How many numbers the parameters hold.
---@return integer
function Module:num_parameters()
  local n = 0
  for _, p in self:named_parameters() do n = n + p:numel() end
  return n
end

--- Makes a tensor part of the module: saved and moved with it, but not trained.
---@param name string
---@param tensor tide.Tensor
---@param opts table?   persistent = false: not saved
---@return tide.Tensor tensor
function Module:register_buffer(name, tensor, opts)
  util.expect(type(name) == "string" and not name:find(".", 1, true), "register_buffer", "name", "a name without dots", name)
  util.expect(is_tensor(tensor), "register_buffer", "tensor", "a Tensor", tensor)
  local meta = meta_of(self)
  meta.params[name] = nil
  meta.buffers[name] = opts and opts.persistent == false and "volatile" or "saved"
  if rawget(self, name) == nil then new_field(self, name, tensor) else rawset(self, name, tensor) end
  return tensor
end

-- ---- mode, place, gradients ----

--- Calls f(module) for this module and all below, the deepest first.
---@param f fun(m: tide.nn.Module)
---@return tide.nn.Module self
function Module:apply(f)
  local list = self:modules()
  for i = #list, 1, -1 do f(list[i]) end
  return self
end

--- Sets training mode, of this module and all below.
---@param on boolean?   false: evaluation
---@return tide.nn.Module self
function Module:train(on)
  on = on ~= false
  for _, m in ipairs(self:modules()) do m:set_training(on) end
  return self
end

--- Sets evaluation mode: Dropout passes everything, BatchNorm2d uses its running statistics.
---@return tide.nn.Module self
function Module:eval() return self:train(false) end

--- Sets the mode of this module alone; C layers have their own version.
---@param on boolean
function Module:set_training(on)
  if self.training ~= on then core.mode_changed(meta_of(self).serial) end
  rawset(self, "training", on)
end

local dtypes = {f32 = true, f64 = true, f16 = true, bf16 = true}
local integers = {i64 = true, i32 = true, u8 = true, bool = true}

local function move(t, to)
  core.set_data(t, t:detach():to(to))
  local g = t.grad
  if g then
    t.grad = nil
    t.grad = g:detach():to(to)
  end
end

--- Moves parameters and buffers to a device, or makes the float ones another dtype. They stay the same tensors, so an
--- optimizer that was made before still has them.
---@param to string   "cuda", "cpu", "f64" …
---@return tide.nn.Module self
function Module:to(to)
  util.expect(type(to) == "string", self.__name .. ":to", "to", "a device or a float dtype", to)
  if integers[to] then fail("%s:to: expected a device or a float dtype, got '%s'", self.__name, to) end
  core.no_grad(function()
    for _, t in ipairs(tensors_of(self)) do
      if not dtypes[to] or dtypes[t.tensor.dtype] then move(t.tensor, to) end
    end
  end)
  return self
end

--- Clears the gradients of all parameters.
function Module:zero_grad()
  for _, p in self:named_parameters() do p.grad = nil end
end

--- Makes all parameters want gradients, or not (frozen ones are not trained, but saved).
---@param on boolean?
---@return tide.nn.Module self
function Module:requires_grad_(on)
  for _, p in self:named_parameters() do p:requires_grad_(on ~= false) end
  return self
end

-- ---- saving ----

--- Parameters and buffers by name. They share memory with the module and have no history.
---@return table<string, tide.Tensor>
function Module:state_dict()
  local state = {}
  for _, t in ipairs(tensors_of(self)) do
    if not t.volatile then state[t.name] = t.tensor:detach() end
  end
  return state
end

local function sample_of(names)
  table.sort(names)
  local shown = table.concat(names, ", ", 1, math.min(#names, 5))
  return #names > 5 and ("%s and %d more"):format(shown, #names - 5) or shown
end

local function same_shape(a, b)
  local s, t = a:shape(), b:shape()
  if #s ~= #t then return false end
  for i = 1, #s do if s[i] ~= t[i] then return false end end
  return true
end

--- Copies tensors by name into the module's own. With `strict` (the default) the names must be the same on both sides;
--- shapes always must. Nothing is changed where something does not fit.
---@param state table<string, tide.Tensor>
---@param opts table?   strict = false: take what there is
---@return string[] missing, string[] unexpected
function Module:load_state_dict(state, opts)
  util.expect(type(state) == "table", "load_state_dict", "state", "a table of tensors by name", state)
  local strict = true
  if type(opts) == "table" then strict = opts.strict ~= false elseif opts ~= nil then strict = opts end
  local missing, unexpected, different, known, pairs_of = {}, {}, {}, {}, {}
  for _, t in ipairs(tensors_of(self, true)) do known[t.name] = true end
  for _, t in ipairs(tensors_of(self)) do
    local given = state[t.name]
    if given == nil then
      if not t.volatile then missing[#missing + 1] = t.name end
    elseif not is_tensor(given) or not same_shape(given, t.tensor) then
      different[#different + 1] = ("%s (expected %s, got %s)"):format(t.name, util.describe(t.tensor), util.describe(given))
    else
      pairs_of[#pairs_of + 1] = {t.tensor, given}
    end
  end
  for name in pairs(state) do if not known[name] then unexpected[#unexpected + 1] = tostring(name) end end
  local wrong = {}
  if #different > 0 then wrong[#wrong + 1] = "other shapes: " .. sample_of(different) end
  if strict and #missing > 0 then wrong[#wrong + 1] = "missing: " .. sample_of(missing) end
  if strict and #unexpected > 0 then wrong[#wrong + 1] = "unexpected: " .. sample_of(unexpected) end
  if #wrong > 0 then fail("%s:load_state_dict: %s", self.__name, table.concat(wrong, "; ")) end
  core.no_grad(function()
    for _, p in ipairs(pairs_of) do p[1]:copy_(p[2]) end
  end)
  return missing, unexpected
end

--- Loads a safetensors file into the module.
---@param file string
---@param opts table?   strict = false: take what there is
---@return tide.nn.Module self
function Module:load(file, opts)
  self:load_state_dict(require "tide.io.safetensors".load(file), opts)
  return self
end

--- Saves parameters and buffers as a safetensors file.
---@param file string
---@param opts table?   metadata = {name = text}
function Module:save(file, opts) require "tide.io.safetensors".save(self, file, opts) end

-- ---- the rest ----

--- Runs the module on a dataset in evaluation mode, without recording. See tide.nn.evaluate.
---@param dataset any
---@param opts table?   batch = 256, metrics = {"accuracy"}, criterion, device, progress
---@return table<string, any> result
function Module:evaluate(dataset, opts) return require "tide.nn.evaluate"(self, dataset, opts) end

--- Runs the module on x in evaluation mode and notes the shapes of all outputs, which tostring then shows.
---@param x tide.Tensor|integer[]   an input, or the shape of one
---@return string
function Module:summary(x) return require "tide.nn.summary".of(self, x) end

--- What tostring shows between the parentheses of a module without children.
---@return string
function Module:describe() return "" end -- luacheck: ignore 212

--- Layers, output shapes where they are known, and parameter counts.
function Module:__tostring() return require "tide.nn.summary".text(self) end

--- A copy with tensors of its own; what is shared inside the module is shared inside the copy. Plain fields are copied as
--- they are.
---@return tide.nn.Module
function Module:clone()
  local copies = {}
  local function copy(v)
    if is_tensor(v) then
      local id = core.identity(v)
      if not copies[id] then
        local c = v:detach():clone()
        if v.requires_grad and v.is_leaf then c:requires_grad_() end
        copies[id] = c
      end
      return copies[id]
    end
    if not is_module(v) then return v end
    if not copies[v] then copies[v] = v:copy_with(copy) end
    return copies[v]
  end
  walk(self, function() end)                               -- refuses cycles
  return copy(self)
end

--- A copy of this module whose tensors and children go through `copy`; C layers have their own version.
---@param copy fun(x: any): any
---@return tide.nn.Module
function Module:copy_with(copy)
  local meta = meta_of(self)
  local other = Module.blank(getmetatable(self))
  local m = meta_of(other)
  for k, v in pairs(meta.place) do m.place[k] = v end
  for k, v in pairs(meta.params) do m.params[k] = v end
  for k, v in pairs(meta.buffers) do m.buffers[k] = v end
  m.n = meta.n
  for _, key in ipairs(fields_in_order(self)) do rawset(other, key, copy(self[key])) end
  for key, value in next, self do
    if key ~= META and rawget(other, key) == nil then rawset(other, key, value) end
  end
  return other
end

--- An instance without fields, before init.
---@param class table
---@return tide.nn.Module
function Module.blank(class)
  created = created + 1
  return setmetatable({training = true, [META] = {serial = created, n = 0, place = {}, params = {}, buffers = {}}}, class)
end

--- Whether x is a module (an instance, not a class).
Module.is_module = is_module

--- Notes that a tensor was made by nn.Parameter, so that fields can be ordered.
function Module.count_parameter(t)
  created = created + 1
  parameter_serial[t] = created
end

local function construct(class, ...)
  local self = Module.blank(class)
  local init = class.init
  if init then init(self, ...) end
  return self
end

--- What nn.Module does without a forward.
function Module:forward()
  fail("%s: it has no forward; write function %s:forward(x) … end", self.__name, self.__name)
end

local class_mt = {__call = construct, __tostring = function(class) return "class " .. class.__name end}

--- A class of one's own: `local Net = nn.Module:extend "Net"`, then Net:init and Net:forward; `Net(…)` makes an instance.
---@param name string
---@return table class
function Module:extend(name)
  util.expect(type(name) == "string" and name ~= "", "extend", "name", "a name", name)
  local class = {__name = name}
  for event, f in pairs(self) do
    if type(event) == "string" and event:sub(1, 2) == "__" and event ~= "__name" then class[event] = f end
  end
  class.__index = class
  return setmetatable(class, {__index = self, __call = class_mt.__call, __tostring = class_mt.__tostring})
end

Module.__call = call
Module.__newindex = new_field
return setmetatable(Module, class_mt)
