--- Modules that hold modules: Sequential, ModuleList, ModuleDict.
local Module = require "tide.nn.module"
local layer = require "tide.nn.layer"
local util = require "tide.util"

local pair, unwatched = layer.pair, layer.unwatched

local M = {}

local function expect_module(who, what, x)
  util.expect(Module.is_module(x), who, what, "a module", x)
end

--- The arguments, or the list that is the only one of them.
local function members(...)
  local first = ...
  local single = select("#", ...) == 1 and type(first) == "table"
  if single and not Module.is_module(first) and not rawget(first, "__name") then return first, #first end
  return {...}, select("#", ...)
end

--- Modules one after the other: each gets what the one before gave.
---
---     local net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
---     net[1].weight  #net  net:append(nn.LogSoftmax())
---@class tide.nn.Sequential: tide.nn.Module
local Sequential = Module:extend "Sequential"

function Sequential:init(...)
  local list, n = members(...)
  for i = 1, n do
    expect_module(self.__name, ("[%d]"):format(i), list[i])
    self[i] = list[i]
  end
end

--- Frees x, which became y.
local function leave(x, y, ...)
  if not rawequal(x, y) then x:free() end
  return y, ...
end

--- What goes from one C layer to the next is freed on the way, but for what the tape has saved: else it would stay until the
--- collector comes by.
function Sequential:forward(x, ...)
  local n = #self
  if n == 0 then return x, ... end
  if n == 1 then return self[1](x, ...) end
  local i = 1
  if select("#", ...) > 0 then
    x = self[1](x, ...)
    i = 2
  end
  local m, ours = self[i], false                         -- ours: x came from a layer, and nobody else has it
  while i < n do
    local after, plain = self[i + 1], unwatched(m)
    local y = pair(m, after, x)                          -- a layer and its activation as one op
    if y then
      i = i + 2
      m = self[i]
    else
      y, i = m(x), i + 1
      m = after
    end
    if ours and plain then leave(x, y) end
    x, ours = y, plain
  end
  if i > n then return x end
  if ours and unwatched(m) then return leave(x, m(x)) end
  return m(x)
end

--- Adds a module at the end.
---@param m tide.nn.Module
---@return tide.nn.Sequential self
function Sequential:append(m)
  expect_module(self.__name .. ":append", "module", m)
  self[#self + 1] = m
  return self
end

--- Iterates over place, module.
function Sequential:iter() return ipairs(self) end

--- A list of modules: `list[1]`, `#list`, `list:append(m)`, `for i, m in ipairs(list)`.
---@class tide.nn.ModuleList: tide.nn.Module
local ModuleList = Module:extend "ModuleList"
ModuleList.init = Sequential.init
ModuleList.append = Sequential.append
ModuleList.iter = Sequential.iter

function ModuleList:forward()
  util.fail("ModuleList: it holds modules and does not run them; call list[i](x), or use nn.Sequential (it holds %d)", #self)
end

--- Modules by name: `dict.encoder`, or `dict:get "encoder"` where the name is that of a method.
---@class tide.nn.ModuleDict: tide.nn.Module
local ModuleDict = Module:extend "ModuleDict"

function ModuleDict:init(modules)
  util.expect(modules == nil or type(modules) == "table" and not Module.is_module(modules), "ModuleDict", "modules",
              "a table of modules by name", modules)
  for _, name in ipairs(util.keys(modules or {})) do self:put(name, modules[name]) end
end

--- Adds or replaces a module.
---@param name string
---@param m tide.nn.Module
---@return tide.nn.ModuleDict self
function ModuleDict:put(name, m)
  local fits = type(name) == "string" and name ~= "" and not name:find(".", 1, true)
  util.expect(fits, "ModuleDict", "name", "a name without dots", name)
  expect_module("ModuleDict", name, m)
  self[name] = m
  return self
end

--- The module of that name, or nil.
---@param name string
---@return tide.nn.Module?
function ModuleDict:get(name)
  local m = rawget(self, name)
  return Module.is_module(m) and m or nil
end

function ModuleDict:forward()
  util.fail("%s: it holds modules and does not run them; call dict.name(x)", self.__name)
end

M.Sequential, M.ModuleList, M.ModuleDict = Sequential, ModuleList, ModuleDict
return M
