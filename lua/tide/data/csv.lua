--- CSV files (RFC 4180): quoted fields with commas, quotes and line ends in them, CR LF or LF, a byte order mark.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

--- Reads the quoted field whose opening quote is at pos; returns the text, the place behind it and the lines passed.
local function quoted(text, pos, path, line)
  local parts, from, passed = {}, pos + 1, 0
  while true do
    local q = text:find('"', from, true)
    if not q then util.fail("csv: %s, line %d: a quote is not closed", path, line) end
    local piece = text:sub(from, q - 1)
    passed = passed + select(2, piece:gsub("\n", ""))
    parts[#parts + 1] = piece
    if text:sub(q + 1, q + 1) ~= '"' then return table.concat(parts), q + 1, passed end
    parts[#parts + 1] = '"'
    from = q + 2
  end
end

--- Iterates over line number, list of fields. Empty lines are passed over.
---@param text string
---@param sep string    one character
---@param path string   for messages
---@return fun(): integer?, string[]?
function M.rows(text, sep, path)
  local pos, line = text:sub(1, 3) == "\xEF\xBB\xBF" and 4 or 1, 1
  local plain = "^[^\r\n" .. (sep:match "%w" and sep or "%" .. sep) .. "]*"
  local function row()
    local fields, from = {}, line
    while true do
      local field
      if text:sub(pos, pos) == '"' then
        local passed
        field, pos, passed = quoted(text, pos, path, line)
        line = line + passed
      else
        field = text:match(plain, pos)
        pos = pos + #field
      end
      fields[#fields + 1] = field
      local c = text:sub(pos, pos)
      if c == sep then
        pos = pos + 1
      elseif c == "" or c == "\n" or c == "\r" then
        pos = pos + (text:sub(pos, pos + 1) == "\r\n" and 2 or c == "" and 0 or 1)
        line = line + 1
        return from, fields
      else
        util.fail("csv: %s, line %d: expected '%s' or the end of the line after a quoted field, got '%s'", path, line, sep, c)
      end
    end
  end
  return function()
    while pos <= #text do
      local from, fields = row()
      if #fields > 1 or fields[1] ~= "" then return from, fields end
    end
  end
end

--- The place of a column by name or number.
local function place_of(column, header, n, path)
  if math.type(column) == "integer" and column ~= 0 and math.abs(column) <= n then
    return column > 0 and column or n + 1 + column
  end
  for i, name in ipairs(header or {}) do if name == column then return i end end
  if type(column) == "string" and header then
    util.fail("csv: %s: there is no column '%s'%s", path, column, util.suggestion(column, header))
  end
  util.fail("csv: %s: expected a column, 1 to %d%s, got %s", path, n, header and " or a name" or "", util.describe(column))
end

local CHUNK = 100

--- Numbers as f32 bytes.
local function pack(row)
  local parts = {}
  for i = 1, #row, CHUNK do
    local j = math.min(i + CHUNK - 1, #row)
    parts[#parts + 1] = (("<" .. ("f"):rep(j - i + 1)):pack(table.unpack(row, i, j)))
  end
  return table.concat(parts)
end

local function number_of(text, missing, path, line, name)
  local trimmed = text:match "^%s*(.-)%s*$"
  local lower = trimmed:lower()
  if trimmed == "" or lower == "na" or lower == "nan" or lower == "null" then
    if missing then return missing end
    util.fail("csv: %s, line %d: column %s: a value is missing; missing = 0 would fill it in", path, line, name)
  end
  local n = tonumber(trimmed)
  if not n then util.fail("csv: %s, line %d: column %s: expected a number, got '%s'", path, line, name, text:sub(1, 40)) end
  return n + 0.0
end

--- Targets as a tensor: numbers where all are numbers, else classes 1, 2, … in the order of their sorted names.
local function targets(texts)
  local numbers, numeric = {}, true
  for i, s in ipairs(texts) do
    numbers[i] = tonumber(s)
    numeric = numeric and numbers[i] ~= nil
  end
  if numeric and #texts > 0 then return core.tensor(numbers), nil end
  local known, classes = {}, {}
  for _, s in ipairs(texts) do
    if not known[s] then
      known[s] = true
      classes[#classes + 1] = s
    end
  end
  table.sort(classes)
  for i, s in ipairs(classes) do known[s] = i end
  for i, s in ipairs(texts) do numbers[i] = known[s] end
  return core.tensor(numbers, {dtype = "i64"}), classes
end

--- Which columns are numbers: those that were named, or all but the target.
local function chosen(o, header, n, target, path)
  local places = {}
  if o.columns then
    util.expect(type(o.columns) == "table", "csv", "columns", "a list of columns", o.columns)
    for i, c in ipairs(o.columns) do places[i] = place_of(c, header, n, path) end
  else
    for i = 1, n do if i ~= target then places[#places + 1] = i end end
  end
  return places
end

local function read_all(path)
  local f, message = io.open(path, "rb")
  if not f then util.fail("csv: %s", message) end
  local text
  text, message = f:read "a"
  f:close()
  if not text then util.fail("csv: %s: %s", path, message) end
  return text
end

--- Reads numbers, and perhaps a target, from a CSV file.
---@param path string
---@param opts table?   header = true: the first row names the columns; sep = ","; target: column that becomes y, by name or
---                     number (text becomes classes 1, 2, …); columns: those that become x, else all but the target;
---                     missing: a number for fields that are empty or NA, which are an error without it
---@return table        x (N, D) f32, y (N) or nil, names of the columns of x, classes or nil
function M.read(path, opts)
  util.expect(type(path) == "string", "csv", "path", "a string", path)
  local o = util.named("csv", opts, {header = true, sep = ",", target = false, columns = false, missing = false})
  util.expect(type(o.sep) == "string" and #o.sep == 1 and not o.sep:find '["\r\n]', "csv", "sep", "one character", o.sep)
  local header, n, target, places, line_of_first
  local rows, texts = {}, {}
  for line, fields in M.rows(read_all(path), o.sep, path) do
    if not n then
      n, line_of_first = #fields, line
      header = o.header and fields or nil
      target = o.target and place_of(o.target, header, n, path) or nil
      places = chosen(o, header, n, target, path)
    elseif #fields ~= n then
      util.fail("csv: %s, line %d: expected %d fields as in line %d, got %d", path, line, n, line_of_first, #fields)
    end
    if fields ~= header then
      local row = {}
      for i, c in ipairs(places) do
        local name = header and ("'%s'"):format(header[c]) or tostring(c)
        row[i] = number_of(fields[c], o.missing, path, line, name)
      end
      rows[#rows + 1] = pack(row)
      if target then texts[#texts + 1] = fields[target] end
    end
  end
  if #rows == 0 then util.fail("csv: %s: it has no rows", path) end
  local names = {}
  for i, c in ipairs(places) do names[i] = header and header[c] or tostring(c) end
  local result = {x = core.from_string(table.concat(rows), "f32", {#rows, #places}), names = names}
  if target then result.y, result.classes = targets(texts) end
  return result
end

return M
