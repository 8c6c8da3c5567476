--- Which module of a tree failed: puts "in Sequential[3] Conv2d: " into an error on its way up.
---
--- C layers run without pcall, they only note that they run; each Lua module catches, finds the child by which the error came
--- among its fields, and passes the error on with one more step of the path. Nothing of this costs until something fails.
local M = {}

local MAX_PATH = 160

--- running.leaf is the C layer that is running, if any.
M.running = {}

local running = M.running
local last = {}                                          -- the error on its way: text, module, place, rest, keys, leaf

--- ".conv" or "[3]": how `parent` names `child`; nil where it does not hold it.
local function key_of(parent, child)
  for key, value in next, parent do
    if rawequal(value, child) then
      if type(key) == "number" then return ("[%d]"):format(key) end
      if type(key) == "string" then return "." .. key end
    end
  end
end

--- Position first, then the path, then the sentence; a sentence that names the layer itself does not get its name twice.
local function compose(self, e)
  local leaf = e.leaf .. ": "
  local what = e.rest:sub(1, #leaf) == leaf and "" or leaf
  local keys = #e.keys > MAX_PATH and "…" .. e.keys:sub(-MAX_PATH) or e.keys
  return ("%sin %s%s %s%s"):format(e.place, self.__name, keys, what, e.rest)
end

--- The error of a call of `self`, with the path to the module that failed.
---@param self table   a module
---@param err any
---@return any err
function M.extend(self, err)
  local child = running.leaf
  running.leaf = nil
  if type(err) ~= "string" then return err end
  if not child and err == last.text then child = last.module end
  local key = child and key_of(self, child)
  if not key then                                        -- its own error: a parent, if there is one, names it
    last = {text = err, module = self}
    return err
  end
  if err ~= last.text or not last.keys then
    local place, rest = err:match "^(%S[^\n]-:%d+: )(.*)$"
    last = {place = place or "", rest = rest or err, keys = "", leaf = child.__name}
  end
  last.keys = key .. last.keys
  last.module = self
  last.text = compose(self, last)
  return last.text
end

return M
