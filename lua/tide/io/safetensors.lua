--- safetensors files (huggingface.co/docs/safetensors): 8 bytes with the length of the header, a header in JSON that says for
--- each name dtype, shape and place, then the numbers, little-endian and row-major. Data only: loading runs no code.
local core = require "tide.core"
local json = require "tide.io.json"
local util = require "tide.util"

local M = {}

local MAX_HEADER = 100 * 1000 * 1000                     -- the format's own limit
local MAX_AXES, MAX_DEPTH = 8, 32
local SIZE = {F64 = 8, F32 = 4, F16 = 2, BF16 = 2, I64 = 8, I32 = 4, U8 = 1, BOOL = 1}
local DTYPE = {F64 = "f64", F32 = "f32", F16 = "f16", BF16 = "bf16", I64 = "i64", I32 = "i32", U8 = "u8", BOOL = "bool"}
local NAME = {}
for name, dtype in pairs(DTYPE) do NAME[dtype] = name end

-- ---- saving ----

--- The tensors of a module, or of a table of tensors by name (modules among them give theirs under "name.").
local function collect(x, prefix, into, depth)
  if depth > MAX_DEPTH then util.fail("save: tables within tables, more than %d deep", MAX_DEPTH) end
  if type(x) == "table" and x.state_dict then
    for name, t in pairs(x:state_dict()) do into[prefix .. name] = t end
    return into
  end
  for name, v in pairs(x) do
    local full = prefix .. tostring(name)
    if core.is_tensor(v) then
      into[full] = v
    elseif type(v) == "table" then
      collect(v, full .. ".", into, depth + 1)
    else
      util.fail("save: '%s': expected a Tensor, a module or a table of them, got %s", full, util.describe(v))
    end
  end
  return into
end

--- Names in the order of the file: wide dtypes first, so that everything is aligned, then by name.
local function ordered(tensors)
  local names = {}
  for name, t in pairs(tensors) do
    if name == "__metadata__" then util.fail "save: a tensor cannot be called '__metadata__'" end
    if not utf8.len(name) then util.fail "save: a name is not UTF-8" end
    if not NAME[t.dtype] then util.fail("save: '%s': safetensors has no dtype %s", name, t.dtype) end
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    local wide_a, wide_b = SIZE[NAME[tensors[a].dtype]], SIZE[NAME[tensors[b].dtype]]
    if wide_a ~= wide_b then return wide_a > wide_b end
    return a < b
  end)
  return names
end

local function header_of(tensors, names, metadata)
  local header, at = {}, 0
  if metadata then
    local texts = {}
    for k, v in pairs(metadata) do
      util.expect(type(k) == "string" and (type(v) == "string" or type(v) == "number"), "save", "metadata", "texts by name", v)
      texts[k] = tostring(v)
    end
    if next(texts) then header.__metadata__ = texts end
  end
  for _, name in ipairs(names) do
    local t = tensors[name]
    local kind, shape = NAME[t.dtype], setmetatable({}, json.list)
    for i, n in ipairs(t:shape()) do shape[i] = n end
    local bytes = t:numel() * SIZE[kind]
    header[name] = {dtype = kind, shape = shape, data_offsets = {at, at + bytes}}
    at = at + bytes
  end
  local text = json.encode(header)
  return text .. (" "):rep(-#text % 8)
end

--- Writes header and tensors, or returns nil, message.
local function write(f, header, tensors, names)
  local ok, message = f:write(("<I8"):pack(#header), header)
  for _, name in ipairs(names) do
    if not ok then return nil, message end
    ok, message = f:write(tensors[name]:bytes())
  end
  if not ok then return nil, message end
  return f:flush()
end

--- Saves tensors. The file appears whole or not at all: it is written beside `path` and then renamed.
---@param x any       a module, an optimizer, or a table of tensors by name; tables in it give names with dots
---@param path string
---@param opts table?   metadata = {name = text}
function M.save(x, path, opts)
  util.expect(type(path) == "string" and path ~= "", "save", "path", "a file name", path)
  if core.is_tensor(x) then x = {tensor = x} end
  util.expect(type(x) == "table", "save", "what", "a module or a table of tensors by name", x)
  local o = util.named("save", opts, {metadata = false})
  local tensors = collect(x, "", {}, 1)
  local names = ordered(tensors)
  local header = header_of(tensors, names, o.metadata or nil)
  local beside = ("%s.%08x.tmp"):format(path, math.random(0, 0xffffffff))
  local f, message = io.open(beside, "wb")
  if not f then util.fail("save: %s", message) end
  local ok, result, why = pcall(write, f, header, tensors, names)
  local closed, close_message = f:close()
  if not ok or not result or not closed then
    os.remove(beside)
    if not ok then error(result, 0) end
    util.fail("save: %s: %s", path, why or close_message)
  end
  ok, message = os.rename(beside, path)
  if not ok then
    os.remove(beside)
    util.fail("save: %s", message)
  end
end

-- ---- loading ----

local function whole(x) return math.type(x) == "integer" and x >= 0 end

--- The number of bytes that dtype and shape need; nil, message where they are no dtype and no shape.
local function bytes_of(entry)
  local size = type(entry.dtype) == "string" and SIZE[entry.dtype]
  if not size then
    return nil, ("dtype %s is not one of F64, F32, F16, BF16, I64, I32, U8, BOOL"):format(tostring(entry.dtype))
  end
  if type(entry.shape) ~= "table" or #entry.shape > MAX_AXES then
    return nil, ("expected a shape of at most %d axes"):format(MAX_AXES)
  end
  local bytes, span = size, size                         -- span: without the extents that are 0
  for k in pairs(entry.shape) do if math.type(k) ~= "integer" then return nil, "expected a list as shape" end end
  for _, n in ipairs(entry.shape) do
    if not whole(n) then return nil, "expected integers >= 0 as shape" end
    if n > 0 and span > (1 << 56) // n then return nil, "the shape is too large" end
    bytes, span = bytes * n, span * math.max(n, 1)
  end
  return bytes
end

--- Checks an entry of the header; returns nil or what is wrong.
local function wrong_entry(entry, room)
  if type(entry) ~= "table" then return "expected an object" end
  for k in pairs(entry) do
    if k ~= "dtype" and k ~= "shape" and k ~= "data_offsets" then return ("unknown field '%s'"):format(tostring(k)) end
  end
  local bytes, message = bytes_of(entry)
  if not bytes then return message end
  local at = entry.data_offsets
  if type(at) ~= "table" or #at ~= 2 or not whole(at[1]) or not whole(at[2]) then return "expected two offsets" end
  if at[1] > at[2] or at[2] > room then
    return ("its place, %d to %d, is not inside the file's %d bytes of data"):format(at[1], at[2], room)
  end
  if at[2] - at[1] ~= bytes then return ("it has %d bytes where its shape needs %d"):format(at[2] - at[1], bytes) end
end

--- Entries in the order of the file. They have to fill it without gaps, or something is hidden or cut off.
local function check_places(path, entries, room)
  table.sort(entries, function(a, b)
    local x, y = a.entry.data_offsets, b.entry.data_offsets
    if x[1] ~= y[1] then return x[1] < y[1] end
    if x[2] ~= y[2] then return x[2] < y[2] end
    return a.name < b.name
  end)
  local at = 0
  for _, e in ipairs(entries) do
    if e.entry.data_offsets[1] ~= at then
      util.fail("load: %s: '%s' begins at byte %d of the data where %d was expected", path, e.name, e.entry.data_offsets[1], at)
    end
    at = e.entry.data_offsets[2]
  end
  if at ~= room then
    util.fail("load: %s: its tensors have %d bytes, the file has %d: it is cut off or damaged", path, at, room)
  end
end

--- The header as a table, and where the data begins and how long it is.
local function read_header(path, f)
  local size = f:seek "end"
  if not size then util.fail("load: %s: it cannot be read", path) end
  f:seek("set", 0)
  local first = size >= 8 and f:read(8)
  if not first or #first < 8 then
    util.fail("load: %s: expected a safetensors file, got one of %d bytes", path, size)
  end
  local n = ("<I8"):unpack(first)
  if n < 2 or n > MAX_HEADER or n > size - 8 then
    util.fail("load: %s: it is no safetensors file, or it is cut off: its header would have %s bytes, the file has %d", path,
              ("%u"):format(n & 0x7fffffffffffffff), size)
  end
  local text = f:read(n)
  if not text or #text < n then util.fail("load: %s: it ends within its header", path) end
  if text:sub(1, 1) ~= "{" then util.fail("load: %s: it is no safetensors file: its header is not a JSON object", path) end
  local header, message = json.decode(text)
  if type(header) ~= "table" then util.fail("load: %s: its header is not JSON: %s", path, message) end
  return header, 8 + n, size - 8 - n
end

--- The metadata of the header, checked.
local function metadata_of(path, header)
  local metadata = header.__metadata__
  if metadata == nil then return {} end
  if type(metadata) ~= "table" then util.fail("load: %s: expected an object as __metadata__", path) end
  for k, v in pairs(metadata) do
    if type(k) ~= "string" or type(v) ~= "string" then util.fail("load: %s: expected texts as __metadata__", path) end
  end
  return metadata
end

--- Loads tensors. Whatever is wrong with the file is one error, and nothing in it is run.
---@param path string
---@param opts table?   device: where the tensors go
---@return table<string, tide.Tensor> tensors, table<string, string> metadata
function M.load(path, opts)
  util.expect(type(path) == "string" and path ~= "", "load", "path", "a file name", path)
  local o = util.named("load", opts, {device = false})
  local f, message = io.open(path, "rb")
  if not f then util.fail("load: %s", message) end
  local ok, header, start, room = pcall(read_header, path, f)
  f:close()
  if not ok then error(header, 0) end
  local metadata = metadata_of(path, header)
  local entries = {}
  for name, entry in pairs(header) do
    if name ~= "__metadata__" then
      local wrong = type(name) ~= "string" and "expected names as keys" or wrong_entry(entry, room)
      if wrong then util.fail("load: %s: '%s': %s", path, tostring(name):sub(1, 200), wrong) end
      entries[#entries + 1] = {name = name, entry = entry}
    end
  end
  check_places(path, entries, room)
  local tensors = {}
  for _, e in ipairs(entries) do
    local shape = {}
    for i, n in ipairs(e.entry.shape) do shape[i] = n end
    local t = core.read_file(path, start + e.entry.data_offsets[1], DTYPE[e.entry.dtype], shape)
    tensors[e.name] = o.device and t:to(o.device) or t
  end
  return tensors, metadata
end

return M
