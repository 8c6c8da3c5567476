--- IDX files, the format of MNIST (LeCun, Cortes & Burges): a header with the extents, then the numbers, big-endian.
local core = require "tide.core"
local util = require "tide.util"

local MAX_AXES = 8
local types = {[0x08] = {"u8", 1}, [0x0C] = {"i32", 4}, [0x0D] = {"f32", 4}, [0x0E] = {"f64", 8}}

local function read_plain(path)
  local f, message = io.open(path, "rb")
  if not f then util.fail("idx: %s", message) end
  local size = f:seek "end"
  f:close()
  if not size then util.fail("idx: %s: cannot tell its size", path) end
  return core.read_file(path, 0, "u8", {size})
end

--- Whether the file begins with the two bytes of gzip.
local function is_gzip(path)
  local f, message = io.open(path, "rb")
  if not f then util.fail("idx: %s", message) end
  local magic = f:read(2)
  f:close()
  return magic == "\x1f\x8b"
end

--- Extents and the number of header bytes, or an error.
local function parse_header(path, bytes)
  local n = bytes:size(1)
  if n < 4 then util.fail("idx: %s: expected a header of at least 4 bytes, got %d", path, n) end
  local head = bytes:narrow(1, 1, math.min(n, 4 + 4 * 255)):bytes()
  local zero, code, axes = (">I2BB"):unpack(head)
  local kind = types[code]
  if zero ~= 0 or not kind then
    util.fail("idx: %s: expected an IDX file of u8, i32, f32 or f64, got one that begins with %02x %02x %02x %02x", path,
              head:byte(1, 4))
  end
  if axes < 1 or axes > MAX_AXES then util.fail("idx: %s: expected 1 to %d axes, got %d", path, MAX_AXES, axes) end
  if #head < 4 + 4 * axes then util.fail("idx: %s: it ends within its header", path) end
  local shape, count, span = {}, 1, 1                    -- span: without the extents that are 0
  for i = 1, axes do
    shape[i] = (">I4"):unpack(head, 1 + 4 * i)
    if shape[i] > 0 and span > (1 << 48) // shape[i] then util.fail("idx: %s: its extents are too large", path) end
    count, span = count * shape[i], span * math.max(shape[i], 1)
  end
  local expected = 4 + 4 * axes + count * kind[2]
  if n ~= expected then
    util.fail("idx: %s: expected %d bytes for shape (%s), got %d: the file is cut off or damaged", path, expected,
              table.concat(shape, ", "), n)
  end
  return kind, shape, 4 + 4 * axes, count
end

--- Reads an IDX file, plain or compressed by gzip.
---@param path string
---@return tide.Tensor   u8, i32, f32 or f64, with the file's extents
return function(path)
  util.expect(type(path) == "string", "idx", "path", "a string", path)
  local bytes = is_gzip(path) and core.gunzip(path, "tensor") or read_plain(path)
  local kind, shape, skip, count = parse_header(path, bytes)
  local dtype, size = kind[1], kind[2]
  local data = bytes:narrow(1, skip + 1, count * size)
  if size == 1 then return data:clone():reshape(shape) end
  return core.from_string(data:reshape {count, size}:flip(2):bytes(), dtype, shape)
end
