--- Logs of a training run: a line for each row, as CSV or as JSON lines, flushed as it is written.
---
---     local log <close> = tide.logger.csv("run.csv")
---     log:write {epoch = 1, loss = mean:value()}
---@class tide.logger
local core = require "tide.core"
local json = require "tide.io.json"
local util = require "tide.util"

local M = {}

---@class tide.logger.Writer
local Writer = {__name = "log"}
Writer.__index = Writer

--- A value as a log takes it: tensors of one element become numbers.
local function plain(v, name)
  if core.is_tensor(v) then
    if v:numel() ~= 1 then util.fail("log: %s: expected a value, got %s", name, util.describe(v)) end
    return v:item()
  end
  if type(v) == "table" or type(v) == "function" or type(v) == "userdata" then
    util.fail("log: %s: expected a text, a number or a boolean, got %s", name, util.describe(v))
  end
  return v
end

local function csv_field(v)
  if v == nil then return "" end
  if math.type(v) == "float" then return ("%.9g"):format(v) end
  local s = tostring(v)
  return s:find '[,"\r\n]' and '"' .. s:gsub('"', '""') .. '"' or s
end

local function csv_row(self, row)
  local lines = {}
  if not self.fields then
    self.fields = util.keys(row)
    for i, name in ipairs(self.fields) do                -- what counts the rows comes first
      if name == "epoch" or name == "step" then table.insert(self.fields, 1, table.remove(self.fields, i)) end
    end
  end
  if not self.began then
    local head = {}
    for i, name in ipairs(self.fields) do head[i] = csv_field(name) end
    lines[1] = table.concat(head, ",")
  end
  local known, cells = {}, {}
  for i, name in ipairs(self.fields) do
    known[name] = true
    cells[i] = csv_field(plain(row[name], name))
  end
  for _, name in ipairs(util.keys(row)) do
    if not known[name] then
      util.fail("log: %s: there is no such column; the columns are %s", name, table.concat(self.fields, ", "))
    end
  end
  lines[#lines + 1] = table.concat(cells, ",")
  return table.concat(lines, "\n") .. "\n"
end

local function json_row(_, row)
  local values = {}
  for name, v in pairs(row) do values[name] = plain(v, name) end
  return json.encode(values) .. "\n"
end

--- Writes a row.
---@param row table<string, any>
function Writer:write(row)
  if not self.file then util.fail("log: %s is closed", self.path) end
  util.expect(type(row) == "table" and #row == 0, "log", "row", "values by name", row)
  local text = self.format(self, row)
  local ok, message = self.file:write(text)
  if ok then ok, message = self.file:flush() end
  if not ok then util.fail("log: %s: %s", self.path, message) end
  self.began = true
end

--- Closes the file.
function Writer:close()
  if self.file then self.file:close() end
  self.file = nil
end
Writer.__close = Writer.close
Writer.__gc = Writer.close

local function open(path, format, opts)
  util.expect(type(path) == "string", "log", "path", "a file name", path)
  local o = util.named("log", opts, {append = false, fields = false})
  local began = false
  if o.append then
    local old = io.open(path, "rb")
    if old then
      began = old:seek "end" > 0
      old:close()
    end
  end
  local file, message = io.open(path, o.append and "ab" or "wb")
  if not file then util.fail("log: %s", message) end
  return setmetatable({path = path, file = file, format = format, fields = o.fields or nil, began = began}, Writer)
end

--- A CSV log. The first row says which columns there are, unless `fields` does.
---@param path string
---@param opts table?   append = false, fields: the columns in their order
---@return tide.logger.Writer
function M.csv(path, opts) return open(path, csv_row, opts) end

--- A log of JSON objects, one a line.
---@param path string
---@param opts table?   append = false
---@return tide.logger.Writer
function M.jsonl(path, opts) return open(path, json_row, opts) end

return M
