--- Text for networks that predict the next character: bytes as classes 1, 2, … of a vocabulary, and random pieces as batches.
local core = require "tide.core"
local util = require "tide.util"

---@class tide.data.Text
---@field vocabulary string[]   the different bytes, in order
---@field ids tide.Tensor       the text as classes, i64 (length)
local Text = {}
Text.__index = Text

local CHUNK = 65536                                      -- bytes turned to numbers at a time

local function read(path)
  local f, why = io.open(path, "rb")
  if not f then util.fail("text: %s", why) end
  local s = f:read "a"
  f:close()
  if not s then util.fail("text: %s: cannot be read", path) end
  return s
end

--- Classes of a string; bytes that the vocabulary lacks are left out.
---@param s string
---@return tide.Tensor ids   i64 (length)
function Text:encode(s)
  local pieces = {}
  for from = 1, math.max(1, #s), CHUNK do
    local list = {}
    for i = from, math.min(#s, from + CHUNK - 1) do list[#list + 1] = self.class[s:sub(i, i)] end
    pieces[#pieces + 1] = #list > 0 and core.tensor(list, {dtype = "i64"}) or core.ops.zeros({0}, {dtype = "i64"})
  end
  return #pieces == 1 and pieces[1] or core.ops.cat(pieces, 1)
end

--- The string of classes.
---@param ids tide.Tensor|integer[]
---@return string
function Text:decode(ids)
  local list, s = core.is_tensor(ids) and ids:reshape {-1}:totable() or ids, {}
  for i, id in ipairs(list) do s[i] = self.vocabulary[id] or util.fail("text: there is no class %s", id) end
  return table.concat(s)
end

--- n random pieces of the text, and the same one character later: what is to be predicted.
---@param n integer
---@param length integer
---@return tide.Tensor x, tide.Tensor y   i64 (n, length)
function Text:batch(n, length)
  local room = self.ids:size(1) - length
  if room < 1 then util.fail("text: pieces of %d characters need a text of %d, it has %d", length, length + 1, #self) end
  local start = core.ops.randint(1, room + 1, {n, 1})
  local at = (start + core.ops.arange(0, length, {dtype = "i64"})):reshape {-1}
  return self.ids:index_select(at, {axis = 1}):reshape {n, length}, self.ids:index_select(at + 1, {axis = 1}):reshape {n, length}
end

function Text:__len() return self.ids:size(1) end

local M = {}

--- A text from a string.
---@param s string
---@return tide.data.Text
function M.from_string(s)
  util.expect(type(s) == "string", "text", "s", "a string", s)
  local seen, self = {}, {vocabulary = {}, class = {}}
  for i = 1, #s do seen[s:byte(i)] = true end
  for b = 0, 255 do
    if seen[b] then
      self.vocabulary[#self.vocabulary + 1] = string.char(b)
      self.class[string.char(b)] = #self.vocabulary
    end
  end
  setmetatable(self, Text)
  self.ids = self:encode(s)
  return self
end

--- A text from a file.
---@param path string
---@return tide.data.Text
function M.text(path)
  util.expect(type(path) == "string", "text", "path", "the name of a file", path)
  return M.from_string(read(path))
end

return M
