-- Files, datasets, loaders.
local tide = require "tide"
local data = tide.data

local path
local function file(text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
  return path
end
local function i64(list) return tide.tensor(list, {dtype = "i64"}) end

before_each(function() path = os.tmpname() end)
after_each(function() os.remove(path) end)

describe("data.idx", function()
  it("reads bytes", function()
    local x = data.idx(file "\0\0\x08\2\0\0\0\2\0\0\0\3\1\2\3\4\5\xff")
    assert.equal("u8", x.dtype)
    assert.same({{1, 2, 3}, {4, 5, 255}}, x:totable())
  end)

  it("reads big-endian integers and numbers", function()
    assert.same({1, -2}, data.idx(file((">I4I4i4i4"):pack(0x0C01, 2, 1, -2))):totable())
    assert.same({0.5, -2}, data.idx(file((">I4I4ff"):pack(0x0D01, 2, 0.5, -2))):totable())
    assert.same({0.1}, data.idx(file((">I4I4d"):pack(0x0E01, 1, 0.1))):totable())
  end)

  it("reads what gzip has compressed", function()
    file "\0\0\x08\1\0\0\0\3abc"
    os.execute(("gzip -kc '%s' > '%s.gz'"):format(path, path))
    assert.same({97, 98, 99}, data.idx(path .. ".gz"):totable())
    os.remove(path .. ".gz")
  end)

  local wrong = {
    ["an empty file"] = {"", "at least 4 bytes"},
    ["another file"] = {"hello, world", "begins with 68 65 6c 6c"},
    ["a header that is cut off"] = {"\0\0\x08\3\0\0\0\1", "within its header"},
    ["data that is cut off"] = {"\0\0\x08\1\0\0\0\9abc", "expected 17 bytes", "got 11", "cut off"},
    ["extents that overflow"] = {(">I4I4I4I4"):pack(0x0803, 0xffffffff, 0xffffffff, 0xffffffff), "too large"},
    ["no axes"] = {"\0\0\x08\0", "axes"},
    ["gzip data that is cut off"] = {"\x1f\x8b\x08\0\0", ""},
  }
  for what, c in pairs(wrong) do
    it("refuses " .. what, function()
      fails_with(function() data.idx(file(c[1])) end, path, table.unpack(c, 2))
    end)
  end
  it("refuses a file that is missing", function() fails_with(function() data.idx "/no/file" end, "data_spec.lua:", "/no/file") end)
end)

describe("data.csv", function()
  it("reads numbers and a target of names", function()
    local set = data.csv(file "a,b,kind\n1,2,x\n3,4.5,y\n-1e2,0,x\n", {target = "kind"})
    assert.same({{1, 2}, {3, 4.5}, {-100, 0}}, set.x:totable())
    assert.same({1, 2, 1}, set.y:totable())
    assert.same({"x", "y"}, set.classes)
    assert.same({"a", "b"}, set.columns)
    assert.equal(3, #set)
  end)

  it("reads numbers as target", function()
    local set = data.csv(file "1;2\n3;4\n", {target = -1, header = false, sep = ";"})
    assert.same({2, 4}, set.y:totable())
    assert.equal("f32", set.y.dtype)
    assert.same({{1}, {3}}, set.x:totable())
  end)

  it("reads quoted fields, CR LF, a byte order mark, empty lines and a last line without an end", function()
    local set = data.csv(file '\xEF\xBB\xBF"a ""q""","b\n2",c\r\n"1",2,"x,y"\r\n\r\n3,4,z', {target = "c"})
    assert.same({'a "q"', "b\n2"}, set.columns)
    assert.same({"x,y", "z"}, set.classes)
    assert.same({{1, 2}, {3, 4}}, set.x:totable())
  end)

  it("takes some columns, and a number for missing fields", function()
    local set = data.csv(file "a,b,c\n1,,3\n4,NA,6\n", {columns = {"c", "b"}, missing = -1})
    assert.same({{3, -1}, {6, -1}}, set.x:totable())
  end)

  it("reads wide rows", function()
    local row = {}
    for i = 1, 1000 do row[i] = i end
    local set = data.csv(file(table.concat(row, ",") .. "\n"), {header = false})
    assert.equal(500500, set.x:sum():item())
  end)

  local wrong = {
    ["a field that is no number"] = {"a,b\n1,2\n3,four\n", {}, "line 3", "'b'", "'four'"},
    ["a missing value"] = {"a,b\n1,\n", {}, "line 2", "'b'", "missing"},
    ["a row of another length"] = {"a,b\n1,2\n3\n", {}, "line 3", "expected 2 fields", "got 1"},
    ["a quote that is not closed"] = {'a\n"1\n2\n', {}, "line 2", "not closed"},
    ["text behind a quote"] = {'a,b\n"1"x,2\n', {}, "line 2", "'x'"},
    ["an unknown column"] = {"kind,b\n1,2\n", {target = "knd"}, "knd", "did you mean 'kind'"},
    ["a column number outside"] = {"a,b\n1,2\n", {target = 3}, "1 to 2"},
    ["a file without rows"] = {"a,b\n", {}, "no rows"},
    ["an unknown option"] = {"a\n1\n", {seperator = ";"}, "seperator"},
  }
  for what, c in pairs(wrong) do
    it("refuses " .. what, function()
      fails_with(function() data.csv(file(c[1]), c[2]) end, "csv", table.unpack(c, 3))
    end)
  end
end)

describe("a dataset of tensors", function()
  local set = data.TensorDataset(tide.arange(1, 7):view {3, 2}, i64 {1, 2, 1}, {classes = {"a", "b"}})

  it("has a length, samples and batches", function()
    assert.equal(3, #set)
    local x, y = set:get(2)
    assert.same({3, 4}, x:totable())
    assert.equal(2, y:item())
    x, y = set:batch(i64 {3, 1})
    assert.same({{5, 6}, {1, 2}}, x:totable())
    assert.same({1, 1}, y:totable())
    assert.same({5, 6}, set[-1][1]:totable())
    fails_with(function() return set[4] end, "1 to 3", "4")
    fails_with(function() return set[0] end, "1 to 3")
  end)

  it("scales bytes", function()
    local bytes = data.TensorDataset(tide.tensor({{0, 255}}, {dtype = "u8"}), {scale = 1 / 255})
    assert.same({0, 1}, bytes[1][1]:totable())
    for x in data.Loader(bytes):epoch() do assert.same({{0, 1}}, x:totable()) end
    for x in data.Loader(bytes, {prefetch = 0}):epoch() do assert.same({{0, 1}}, x:totable()) end
  end)

  it("has subsets", function()
    local some = data.subset(set, {3, 1})
    assert.equal(2, #some)
    assert.same({5, 6}, (some:get(1)):totable())
    assert.same({"a", "b"}, some.classes)
    assert.same({{1, 2}}, (data.subset(some, {2}):batch(i64 {1})):totable())
    fails_with(function() data.subset(set, {4}) end, "1 to 3", "4")
  end)

  it("splits at random into parts that do not overlap", function()
    tide.manual_seed(4)
    local a, b = data.random_split(data.TensorDataset(tide.arange(1, 11)), {0.7, 0.3})
    assert.equal(7, #a)
    assert.equal(3, #b)
    assert.equal(55, (a.indices:sum() + b.indices:sum()):item())
    fails_with(function() data.random_split(set, {1, 1}) end, "add up to 3")
  end)

  it("refuses tensors of different lengths", function()
    fails_with(function() data.TensorDataset(tide.ones(2), tide.ones(3)) end, "f32 (2)", "f32 (3)")
    fails_with(function() data.TensorDataset(tide.ones(2), 3) end, "TensorDataset")
    fails_with(function() data.TensorDataset() end, "at least one")
  end)
end)

describe("a Loader", function()
  local x = tide.arange(1, 8)
  local set = data.TensorDataset(x, x:to "i64" * 10)
  local function collect(loader)
    local all, sizes = {}, {}
    for bx, by in loader:epoch() do
      assert.is_true((bx:to "i64" * 10):equal(by))
      for _, v in ipairs(bx:totable()) do all[#all + 1] = math.tointeger(v) end
      sizes[#sizes + 1] = bx:size(1)
    end
    return all, sizes
  end

  for name, prefetch in pairs {["in the background"] = 2, ["on the script's thread"] = 0} do
    describe(name, function()
      it("gives every sample once, in order", function()
        local all, sizes = collect(data.Loader(set, {batch = 3, prefetch = prefetch}))
        assert.same({1, 2, 3, 4, 5, 6, 7}, all)
        assert.same({3, 3, 1}, sizes)
        assert.equal(3, #data.Loader(set, {batch = 3}))
      end)
      it("drops a last batch that is smaller", function()
        local loader = data.Loader(set, {batch = 3, drop_last = true, prefetch = prefetch})
        assert.same({1, 2, 3, 4, 5, 6}, (collect(loader)))
        assert.equal(2, #loader)
      end)
      it("shuffles anew each epoch, and the same from the same seed", function()
        local loader = data.Loader(set, {batch = 2, shuffle = true, prefetch = prefetch})
        tide.manual_seed(8)
        local first, second = collect(loader), collect(loader)
        tide.manual_seed(8)
        assert.same(first, (collect(loader)))
        assert.is_false(table.concat(first) == table.concat(second))
        table.sort(first)
        assert.same({1, 2, 3, 4, 5, 6, 7}, first)
      end)
      it("takes subsets", function()
        local loader = data.Loader(data.subset(set, {7, 1, 3}), {batch = 2, prefetch = prefetch})
        assert.same({7, 1, 3}, (collect(loader)))
      end)
      it("may be left and begun again", function()
        local loader = data.Loader(set, {batch = 2, prefetch = prefetch})
        local first = loader:epoch()
        assert.equal(1, (first())[1]:item())
        assert.equal(7, #(collect(loader)))
      end)
      it("may run an epoch inside an epoch", function()
        local loader, n = data.Loader(set, {batch = 4, prefetch = prefetch}), 0
        for _ in loader:epoch() do for _ in loader:epoch() do n = n + 1 end end
        assert.equal(4, n)
      end)
      it("gives nothing of nothing", function()
        assert.same({}, (collect(data.Loader(data.TensorDataset(tide.zeros(0), i64 {}), {batch = 4, prefetch = prefetch}))))
      end)
    end)
  end

  it("transforms batches", function()
    local loader = data.Loader(set, {batch = 7, transform = function(bx, by) return bx * 2, by end})
    for bx in loader:epoch() do assert.equal(56, bx:sum():item()) end
  end)

  it("takes any dataset with a length and get", function()
    local squares = setmetatable({get = function(_, i) return tide.tensor {i, i * i}, i end}, {__len = function() return 5 end})
    local got = {}
    for bx, by in data.Loader(squares, {batch = 2}):epoch() do
      for i = 1, #by do got[#got + 1] = bx[{i, 2}]:item() - by[i]:item() end
    end
    assert.same({0, 2, 6, 12, 20}, got)
  end)

  it("gives more than two tensors", function()
    local three = data.TensorDataset(x, x + 1, x + 2)
    for a, b, c in data.Loader(three, {batch = 7}):epoch() do assert.equal(7 + 7, (c - a + (b - a) * 0):sum():item()) end
  end)

  it("refuses wrong options and datasets", function()
    fails_with(function() data.Loader(set, {batch = 0}) end, "data_spec.lua:", "batch", ">= 1")
    fails_with(function() data.Loader(set, {bach = 1}) end, "did you mean 'batch'")
    fails_with(function() data.Loader(7) end, "a dataset")
    fails_with(function() data.Loader({}, {batch = 1}) end, "a dataset")
  end)
end)

describe("data.fashion_mnist", function()
  it("reads Debian's files", function()
    local train, test = data.fashion_mnist()
    assert.equal(60000, #train)
    assert.equal(10000, #test)
    assert.equal(10, #train.classes)
    local x, y = train:get(1)
    assert.equal("(1, 28, 28)", tostring(x:shape()))
    assert.is_true(x:amax():item() <= 1 and x:amin():item() >= 0)
    assert.equal("Ankle boot", train.classes[y:item()])
    assert.same({1, 10}, {test.tensors[2]:amin():item(), test.tensors[2]:amax():item()})
  end)

  it("says where it looked and how to install them", function()
    fails_with(function() data.fashion_mnist {dir = "/no/dir"} end, "/no/dir", "apt-get install dataset-fashion-mnist")
    fails_with(function() data.mnist {dir = "/no/dir"} end, "/no/dir")
  end)
end)
