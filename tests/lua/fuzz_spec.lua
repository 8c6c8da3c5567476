-- Damaged files: thousands of deterministic changes of good safetensors, IDX and CSV files. Each loads as something valid or is
-- one error that names the file; nothing crashes, and nothing stays behind.
local tide = require "tide"
local data = tide.data

local ROUNDS = sanitized and 300 or 2000
local path

-- ---- a generator of its own, so that the cases do not depend on what else is drawn ----

local seed = 1
local function draw(n) -- 1 .. n
  seed = seed ~ (seed << 13)
  seed = seed ~ (seed >> 7)
  seed = seed ~ (seed << 17)
  return (seed >> 1) % n + 1
end
local function pick(list) return list[draw(#list)] end

-- ---- changes ----

local function byte_at(s, i, c) return s:sub(1, i - 1) .. c .. s:sub(i + 1) end
local numbers = {"0", "1", "-1", "2", "8", "255", "65536", "2147483648", "4294967296", "9223372036854775807", "9223372036854775808",
                 "1e3", "1e999", "-0", "0.5", "01", "NaN", "{}", "[]", "null", "true", "\"1\"", ""}
local changes = {
  function(s) local i = draw(#s) return byte_at(s, i, string.char(s:byte(i) ~ (1 << (draw(8) - 1)))) end,
  function(s) return byte_at(s, draw(#s), pick {"\0", "\1", "\x7f", "\x80", "\xff", "\n", "\"", "{", ","}) end,
  function(s) return s:sub(1, draw(#s) - 1) end,
  function(s) return s:sub(draw(#s)) end,
  function(s) local i = draw(#s) return s:sub(1, i) .. s:sub(draw(i)) end,
  function(s) local i = draw(#s) return s:sub(1, i) .. ("\0"):rep(draw(64)) .. s:sub(i + 1) end,
  function(s) local i = draw(#s) return s:sub(1, i) .. s:sub(i + draw(16)) end,
  function(s) local i = draw(#s) return byte_at(s, i, s:sub(i, i):rep(draw(200))) end,
  function(s) -- a number in a text becomes another
    local n = select(2, s:gsub("%d+", ""))
    if n == 0 then return s end
    local at, i = draw(n), 0
    return (s:gsub("%d+", function(d)
      i = i + 1
      return i == at and pick(numbers) or d
    end))
  end,
}
local function changed(s)
  for _ = 1, draw(3) do if #s > 0 then s = pick(changes)(s) end end
  return s
end

-- ---- what must hold ----

local function write(text)
  os.remove(path) -- some file systems wait for the disk where a file is written anew, not where it is new
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end
local function try(text, load, use)
  write(text)
  local ok, result, more = pcall(load, path)
  if ok then
    use(result, more)
    return true
  end
  assert(type(result) == "string", "the error is a " .. type(result))
  assert(result:find(path, 1, true), "the message does not name the file: " .. result)
  assert(not result:find "%c", ("the message has control characters: %q"):format(result))
  assert(#result < 1000, "the message is very long")
  return false
end
local function is_whole(t)
  assert(tide.is_tensor(t) and t:dim() <= 8)
  assert(t:numel() <= 1 << 22)
  t:to "f64":sum():item()
end

local function fuzz(what, good, load, use, rebuild)
  it(what, function()
    seed = 88172645463325252
    collectgarbage()
    collectgarbage()
    local before = tide.memory("cpu").current
    for _, text in ipairs(good) do assert(try(text, load, use)) end
    local loaded = 0
    for round = 1, ROUNDS do
      local text = changed(pick(good))
      if rebuild and round % 2 == 0 then text = rebuild(text) end
      if try(text, load, use) then loaded = loaded + 1 end
    end
    assert(loaded < ROUNDS, "nothing was refused")
    collectgarbage()
    collectgarbage()
    assert.equal(before, tide.memory("cpu").current)
  end)
end

before_each(function() path = os.tmpname() end)
after_each(function() os.remove(path) end)

describe("damaged files:", function()
  local function safetensors(header, bytes) return ("<I8"):pack(#header) .. header .. bytes end
  local header = [[{"__metadata__":{"made by":"a test"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},]] ..
    [["b":{"dtype":"BOOL","shape":[4],"data_offsets":[24,28]},"n\u00e4":{"dtype":"F16","shape":[],"data_offsets":[28,30]},]] ..
    [["none":{"dtype":"I64","shape":[0,7],"data_offsets":[30,30]}}]]
  local good = {safetensors(header, ("<ffffff"):pack(1, 2, 3, 4, 5, 6) .. "\0\1\1\0\0\x3c"), safetensors("{}", "")}
  local function use_tensors(tensors, metadata)
    for name, t in pairs(tensors) do
      assert(type(name) == "string")
      is_whole(t)
    end
    for k, v in pairs(metadata) do assert(type(k) == "string" and type(v) == "string") end
  end
  fuzz("safetensors", good, tide.load, use_tensors)
  fuzz("safetensors whose length of the header is right", good, tide.load, use_tensors, function(text)
    local _, last = text:find("}}", 9, true)
    return last and safetensors(text:sub(9, last), text:sub(last + 1)) or text
  end)

  local idx = {(">I2BBI4I4"):pack(0, 8, 2, 3, 4) .. "abcdefghijkl", (">I2BBI4ff"):pack(0, 13, 1, 2, 0.5, -1),
               (">I2BBI4I4I4i4"):pack(0, 12, 3, 1, 1, 1, -7), (">I2BBI4I4"):pack(0, 14, 2, 0, 5)}
  fuzz("IDX", idx, data.idx, is_whole)

  local crc_of = {}
  for i = 0, 255 do
    local c = i
    for _ = 1, 8 do c = c & 1 == 1 and (c >> 1) ~ 0xedb88320 or c >> 1 end
    crc_of[i] = c
  end
  local function crc32(s)
    local c = 0xffffffff
    for i = 1, #s do c = crc_of[(c ~ s:byte(i)) & 0xff] ~ (c >> 8) end
    return c ~ 0xffffffff
  end
  --- A gzip member of one stored block (RFC 1951, 1952).
  local function gzip(s)
    return "\x1f\x8b\8\0\0\0\0\0\0\3\1" .. ("<I2I2"):pack(#s, ~#s & 0xffff) .. s .. ("<I4I4"):pack(crc32(s), #s)
  end
  local zipped = {}
  for i, s in ipairs(idx) do zipped[i] = gzip(s) end
  zipped[#zipped + 1] = gzip(idx[1]:sub(1, 9)) .. gzip(idx[1]:sub(10)) -- two members are one file
  fuzz("IDX in gzip", zipped, data.idx, is_whole)
  fuzz("IDX in gzip whose sum is right", idx, data.idx, is_whole, gzip)

  local csv = {"a,b,kind\n1,2,7\n3,4.5,8\n-1e2,0,9\n", "\xEF\xBB\xBF\"a\",\"b \"\"q\"\"\",c\r\n1,\"2\",3\r\n\r\n4,5,6", "x\n1\n"}
  fuzz("CSV", csv, data.csv, function(set)
    is_whole(set.x)
    assert(set.x:dim() == 2)
  end)
  fuzz("CSV with a target, missing values and another separator", {"1;2;x\n3;4.5;y\n-1e2;0;x\n", "1;2;\n;;\n", "NA;7;0x10\n1;;3\n"},
    function(file) return data.csv(file, {sep = ";", target = -1, missing = 0, header = false}) end, function(set)
    is_whole(set.x)
    is_whole(set.y)
    assert(set.x:size(1) == set.y:size(1))
  end)

  it("extents of 0 do not hide others that are too large", function()
    write(safetensors([[{"w":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}}]], ""))
    fails_with(function() tide.load(path) end, path, "'w'", "too large")
    write((">I2BBI4I4I4"):pack(0, 8, 3, 0, 4294967295, 4294967295))
    fails_with(function() data.idx(path) end, path, "too large")
  end)
  it("bools that are neither 0 nor 1 are true", function()
    write(safetensors([[{"b":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}}]], "\0\1\2\xff"))
    local b = tide.load(path).b
    assert.equal(3, b:sum():item())
    assert.same({2, 3, 4}, tide.arange(1, 5)[b]:totable())
    assert.equal(3, tide.from_string("\0\1\2\xff", "bool", {4}):sum():item())
    assert.is_true(tide.empty(1000, {dtype = "bool"}):to "i64":amax():item() <= 1)
  end)
end)
