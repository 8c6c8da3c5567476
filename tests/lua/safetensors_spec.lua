-- safetensors files and JSON: round trips, other people's files, and files that are wrong.
local tide = require "tide"
local json = tide.json

local path
local function write(text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end
local function read()
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end
local function file(header, data) write(("<I8"):pack(#header) .. header .. (data or "")) end

before_each(function() path = os.tmpname() end)
after_each(function() os.remove(path) end)

describe("tide.save and tide.load", function()
  it("give back every dtype and shape", function()
    local tensors = {scalar = tide.tensor(2.5), empty = tide.zeros(0, 3), matrix = tide.randn(2, 3),
                     wide = tide.randn(2, 2, {dtype = "f64"}), turned = tide.randn(2, 3):t(),
                     i64 = tide.tensor({1, -2}, {dtype = "i64"}), mask = tide.tensor {true, false},
                     half = tide.tensor({1.5, 2}, {dtype = "f16"}), brain = tide.tensor({1.5}, {dtype = "bf16"}),
                     i32 = tide.tensor({7}, {dtype = "i32"}), u8 = tide.tensor({255}, {dtype = "u8"})}
    tide.save(tensors, path, {metadata = {epoch = 3, note = 'a "b"\n'}})
    local loaded, metadata = tide.load(path)
    for name, t in pairs(tensors) do
      assert.equal(t.dtype, loaded[name].dtype, name)
      assert.is_true(t:shape() == loaded[name]:shape(), name)
      assert.is_true(t:to "f64":equal(loaded[name]:to "f64"), name)
    end
    assert.same({epoch = "3", note = 'a "b"\n'}, metadata)
  end)

  it("give back a network", function()
    local nn = tide.nn
    local function make() return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 3)) end
    local a, b = make(), make()
    a(tide.randn(4, 1, 5, 5))
    tide.save(a, path)
    b:load(path)
    local x = tide.randn(1, 1, 5, 5)
    assert.is_true(a:eval()(x):equal(b:eval()(x)))
    assert.equal(1, b[2].num_batches_tracked:item())
  end)

  it("take tables of modules and tensors, with dots between names", function()
    tide.save({model = tide.nn.Linear(1, 1), step = tide.tensor(3)}, path)
    local loaded = tide.load(path)
    assert.truthy(loaded["model.weight"] and loaded["model.bias"] and loaded.step)
  end)

  it("write a header that is padded to 8 bytes, wide dtypes first", function()
    tide.save({b = tide.zeros(1, {dtype = "u8"}), a = tide.zeros(1), c = tide.zeros(1, {dtype = "f64"})}, path)
    local text = read()
    local n = ("<I8"):unpack(text)
    assert.equal(0, n % 8)
    local header = json.decode(text:sub(9, 8 + n))
    assert.same({0, 8}, header.c.data_offsets)
    assert.same({8, 12}, header.a.data_offsets)
    assert.same({dtype = "U8", shape = {1}, data_offsets = {12, 13}}, header.b)
    assert.equal(8 + n + 13, #text)
  end)

  it("leave the old file alone where saving fails", function()
    write "old"
    fails_with(function() tide.save({a = 1}, path) end, "safetensors_spec.lua:", "'a'", "expected a Tensor")
    assert.equal("old", read())
    fails_with(function() tide.save({a = tide.ones(1)}, "/no/dir/x") end, "/no/dir/x")
    fails_with(function() tide.load "/no/file" end, "/no/file")
    local cyclic = {}
    cyclic.again = cyclic
    fails_with(function() tide.save(cyclic, path) end, "deep")
  end)

  it("read a file that Python's safetensors 0.8 wrote", function()
    local header = '{"__metadata__":{"by":"python"},"i":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"e":{"dtype":"F64",'
      .. '"shape":[0,2],"data_offsets":[16,16]},"y":{"dtype":"F32","shape":[2,2],"data_offsets":[16,32]},"m":{"dtype":"BOOL",'
      .. '"shape":[1],"data_offsets":[32,33]}}'
    file(header .. (" "):rep(-#header % 8), ("<i8i8ffffB"):pack(1, -2, 2, 4, 6, 9, 1))
    local loaded, metadata = tide.load(path)
    assert.same({{2, 4}, {6, 9}}, loaded.y:totable())
    assert.same({1, -2}, loaded.i:totable())
    assert.same({true}, loaded.m:totable())
    assert.equal("(0, 2)", tostring(loaded.e:shape()))
    assert.equal("python", metadata.by)
  end)

  it("read files that Python writes here, and write files that it reads", function()
    local probe = os.execute "python3 -c 'import safetensors.numpy, numpy' 2>/dev/null"
    if not probe then return pending "python3 has no safetensors and numpy" end
    local script = ([==[
import numpy, safetensors.numpy as s
t = s.load_file(%q)
assert t["x"].tolist() == [[1.0, 2.0], [3.0, 4.5]] and t["i"].dtype == numpy.int64, t
s.save_file({"y": t["x"] * 2, "e": numpy.zeros((0, 2), "float64"), "m": numpy.array([True])}, %q, {"by": "python"})
]==]):format(path, path)
    tide.save({x = tide.tensor {{1, 2}, {3, 4.5}}, i = tide.tensor({1}, {dtype = "i64"})}, path)
    local name = os.tmpname()
    local f = assert(io.open(name, "w"))
    f:write(script)
    f:close()
    assert(os.execute("python3 " .. name))
    os.remove(name)
    local loaded, metadata = tide.load(path)
    assert.same({{2, 4}, {6, 9}}, loaded.y:totable())
    assert.equal("bool", loaded.m.dtype)
    assert.equal("python", metadata.by)
  end)
end)

describe("tide.load refuses", function()
  local one = '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
  it("an empty file", function() write "" fails_with(function() tide.load(path) end, path, "0 bytes") end)
  it("a file of a few bytes", function() write "abc" fails_with(function() tide.load(path) end, "3 bytes") end)
  it("a header longer than the file", function()
    write(("<I8"):pack(1 << 40) .. "{}")
    fails_with(function() tide.load(path) end, "cut off")
  end)
  it("a negative length of the header", function()
    write(("<i8"):pack(-1) .. "{}")
    fails_with(function() tide.load(path) end, "no safetensors file")
  end)
  it("every cut of a good file", function()
    tide.save({a = tide.ones(3), b = tide.ones(2, 2)}, path, {metadata = {k = "v"}})
    local text = read()
    for n = 0, #text - 1 do
      write(text:sub(1, n))
      fails_with(function() tide.load(path) end, "load: ")
    end
  end)
  it("a file with more behind its data", function()
    file(one, "12345")
    fails_with(function() tide.load(path) end, "4 bytes, the file has 5")
  end)

  local headers = {
    ["no object"] = {"[1]", "not a JSON object"},
    ["broken JSON"] = {'{"a":', "not JSON"},
    ["a name twice"] = {one:sub(1, -2) .. "," .. one:sub(2), "second time"},
    ["an unknown dtype"] = {'{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}', "'a'", "F8_E4M3"},
    ["a negative extent"] = {'{"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}', "shape"},
    ["a broken extent"] = {'{"a":{"dtype":"U8","shape":[4.5],"data_offsets":[0,4]}}', "shape"},
    ["huge extents"] = {'{"a":{"dtype":"U8","shape":[4294967296,4294967296,16],"data_offsets":[0,4]}}', "too large"},
    ["many axes"] = {'{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,4]}}', "8 axes"},
    ["a shape that is no list"] = {'{"a":{"dtype":"U8","shape":{"x":4},"data_offsets":[0,4]}}', "shape"},
    ["offsets outside"] = {'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}', "inside"},
    ["offsets backwards"] = {'{"a":{"dtype":"U8","shape":[0],"data_offsets":[4,0]}}', "inside"},
    ["offsets that do not fit the shape"] = {'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', "needs 8"},
    ["one offset"] = {'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}', "two offsets"},
    ["a gap"] = {'{"a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}}', "begins at byte 1"},
    ["an overlap"] = {'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}', "'b'"},
    ["no fields"] = {'{"a":{}}', "dtype nil"},
    ["an entry that is no object"] = {'{"a":3}', "object"},
    ["an unknown field"] = {'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"code":"x"}}', "code"},
    ["metadata that is no texts"] = {'{"__metadata__":{"a":1}}', "__metadata__"},
  }
  for what, c in pairs(headers) do
    it(what, function()
      file(c[1], "1234")
      fails_with(function() tide.load(path) end, "safetensors_spec.lua:", table.unpack(c, 2))
    end)
  end

  it("random changes of a good file, or reads them, but never crashes", function()
    tide.save({a = tide.ones(3), b = tide.ones(2, 2)}, path, {metadata = {k = "v"}})
    local text = read()
    tide.manual_seed(6)
    for _ = 1, 300 do
      local at = tide.random(1, #text)
      write(text:sub(1, at - 1) .. string.char(tide.random(0, 255)) .. text:sub(at + 1))
      local ok, message = pcall(tide.load, path)
      assert.is_true(ok or type(message) == "string" and message:find("load: ", 1, true) ~= nil, tostring(message))
    end
  end)
end)

describe("json", function()
  it("reads what it writes", function()
    local value = {a = {1, 2.5, -3}, b = {c = "é\"\\\n\1"}, d = true}
    assert.same(value, json.decode(json.encode(value)))
  end)
  it("reads escapes", function() assert.equal("é😀/", json.decode '"\\u00e9\\ud83d\\ude00\\/"') end)
  it("writes keys in order, and whole numbers without a point", function()
    assert.equal('{"a":1,"b":0.5}', json.encode {b = 0.5, a = 1})
  end)
  it("tells null from nothing", function() assert.equal(json.null, json.decode '{"a":null}'.a) end)
  for _, text in ipairs {"", "01", "1.", "[1,]", '{"a"}', '"\\x"', '"\\ud800"', "nul", "1 2", '{"a":1,"a":2}', "1e999", '"a\nb"',
                         ("["):rep(200), '"\xff"'} do
    it("refuses " .. text:sub(1, 20):gsub("%c", "?"):gsub("\xff", "?"), function()
      local value, message = json.decode(text)
      assert.is_nil(value)
      assert.equal("string", type(message))
    end)
  end
  it("refuses to write what JSON has not", function()
    fails_with(function() json.encode(print) end, "function")
    fails_with(function() json.encode {[1.5] = 1} end, "keys")
  end)
end)
