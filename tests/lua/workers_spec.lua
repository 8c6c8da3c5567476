-- Loaders whose samples are read and transformed by Lua modules, each worker in a Lua state of its own.
local tide = require "tide"
local data = tide.data

local dir = os.tmpname()
os.remove(dir)
assert(os.execute(("mkdir '%s'"):format(dir)))
package.path = dir .. "/?.lua;" .. package.path

--- Writes a module; its name is its own, for what was required once stays.
local made = 0
local function module(code)
  made = made + 1
  local name = "workers_spec_" .. made
  local f = assert(io.open(("%s/%s.lua"):format(dir, name), "w"))
  f:write('local tide = require "tide"\n', code)
  f:close()
  return name
end

local function i64(values) return tide.tensor(values, {dtype = "i64"}) end

local x = tide.arange(1, 15):view {7, 2}
local set = data.TensorDataset(x, i64 {1, 2, 3, 4, 5, 6, 7})

--- All of an epoch: lists of x and y.
local function collect(loader)
  local xs, ys = {}, {}
  for bx, by in loader:epoch() do
    for _, row in ipairs(bx:totable()) do xs[#xs + 1] = row end
    for _, v in ipairs(by:totable()) do ys[#ys + 1] = v end
  end
  return xs, ys
end

local function resident()
  for line in io.lines "/proc/self/status" do
    local kb = line:match "^VmRSS:%s+(%d+)"
    if kb then return tonumber(kb) end
  end
end

teardown(function()
  collectgarbage()
  os.execute(("rm -r '%s'"):format(dir))
end)

for _, workers in ipairs {0, 1, 3} do
  describe(("a Loader with %d workers that run a module"):format(workers), function()
    local function loader(dataset, o)
      o.workers, o.batch = workers, o.batch or 3
      return data.Loader(dataset, o)
    end

    it("transforms samples by its function", function()
      local double = module "return function(x, y) return x * 2, y + 1 end"
      local xs, ys = collect(loader(set, {transform = double}))
      assert.same((x * 2):totable(), xs)
      assert.same({2, 3, 4, 5, 6, 7, 8}, ys)
    end)

    it("or by the function of that name in its table; what is a number becomes a tensor", function()
      local name = module "return {transform = function(x, y) return x:sum():item(), y:item() end}"
      for bx, by in loader(set, {transform = name, batch = 7}):epoch() do
        assert.equal("f32", bx.dtype)
        assert.same({3, 7, 11, 15, 19, 23, 27}, bx:totable())
        assert.equal("i64", by.dtype)
      end
    end)

    it("collates samples by a module, into whatever may leave its state", function()
      local name = module [[
        return {collate = function(samples)
          local longest = 0
          for _, s in ipairs(samples) do longest = math.max(longest, s[2]:item()) end
          local x = tide.zeros(#samples, longest)
          for i, s in ipairs(samples) do x[{i, {1, s[2]:item()}}] = s[2]:item() end
          return x, {count = #samples, names = {"a", false, 2.5, {}}}, "text"
        end}]]
      local shapes = {}
      for bx, info, text in loader(set, {collate = name}):epoch() do
        shapes[#shapes + 1] = tostring(bx:shape())
        assert.same({count = bx:size(1), names = {"a", false, 2.5, {}}}, info)
        assert.equal("text", text)
      end
      assert.same({"(3, 3)", "(3, 6)", "(1, 7)"}, shapes)
    end)

    it("reads a dataset that is a module, by its options, in subsets too", function()
      local squares = data.module(module [[
        return function(options)
          return {size = function() return options.n end, get = function(i) return options.scale * i * i, options.names[i] end}
        end]], {n = 5, scale = tide.tensor(2.0), names = {11, 12, 13, 14, 15}})
      assert.equal(5, #squares)
      assert.equal(18, (squares:get(3)):item())
      assert.equal(50, (squares:get(-1)):item())
      local xs, ys = collect(loader(squares, {}))
      assert.same({2, 8, 18, 32, 50}, xs)
      assert.same({11, 12, 13, 14, 15}, ys)
      xs, ys = collect(loader(data.subset(data.subset(squares, {5, 1, 3}), {1, 3}), {}))
      assert.same({50, 18}, xs)
      assert.same({15, 13}, ys)
    end)

    it("puts what a module reads through transforms in C", function()
      local images = data.module(module [[
        return {size = function() return 6 end, get = function(i) return tide.full({1, 4, 4}, i, {dtype = "u8"}), i end}]])
      local T = data.transforms
      local n = 0
      for bx, by in loader(images, {transform = {T.RandomCrop(3), T.Normalize(1, 2)}}):epoch() do
        assert.equal("(3, 1, 3, 3)", tostring(bx:shape()))
        assert.same(((by:to "f32" - 1) / 2):totable(), bx:mean {2, 3, 4}:totable())
        n = n + 1
      end
      assert.equal(2, n)
    end)

    it("transforms on workers what a dataset of the script's gives", function()
      local own = setmetatable({get = function(_, i) return tide.tensor {i, -i}, i end}, {__len = function() return 4 end})
      local xs, ys = collect(loader(own, {transform = module "return function(x, y) return x * 10, y end"}))
      assert.same({{10, -10}, {20, -20}, {30, -30}, {40, -40}}, xs)
      assert.same({1, 2, 3, 4}, ys)
    end)

    it("scales bytes, and gives more than two tensors", function()
      local three = data.TensorDataset(tide.tensor({{0, 255}, {255, 0}}, {dtype = "u8"}), i64 {1, 2}, i64 {3, 4}, {scale = 1 / 255})
      for a, b, c in loader(three, {transform = module "return function(a, b, c) return a, c, b end"}):epoch() do
        assert.same({{0, 1}, {1, 0}}, a:totable())
        assert.same({3, 4}, b:totable())
        assert.same({1, 2}, c:totable())
      end
    end)

    it("leaves the dataset as it is when a transform works in place, and batches when a module keeps them", function()
      local loader_ = loader(set, {transform = module "return function(x, y) return x:mul_(0), y end"})
      assert.equal(0, (collect(loader_))[1][1])
      assert.same({1, 2}, x[1]:totable())
      local keeps = module [[
        local kept = tide.zeros(2)
        return {transform = function(_, y) kept:add_(1) return kept, y end,
                collate = function(samples) kept:fill_(#samples) return kept end}]]
      local n = 0
      for b in loader(set, {transform = keeps, collate = keeps, batch = 7, drop_last = true}):epoch() do
        n = n + b:sum():item()
      end
      assert.equal(14, n)
    end)

    it("names module, sample and line of an error, with the worker's traceback, at the script's line; and works on", function()
      local name = module [[
        local function broken(v) return v.nothing.more end
        return function(x, y)
          if y:item() == 5 then broken {} end
          return x, y
        end]]
      local l = loader(set, {transform = name})
      for _ = 1, 2 do
        local seen = 0
        local message = fails_with(function() for _ in l:epoch() do seen = seen + 1 end end, "workers_spec.lua:",
                                   ("Loader: transform '%s' failed at sample 5: "):format(name):gsub(" failed", ""),
                                   name .. ".lua:2: ", "nothing", "stack traceback", "in upvalue 'broken'")
        assert.matches("^[^\n]*workers_spec.lua:%d+: Loader", message)
        assert.equal(1, seen)
      end
      assert.same({{1, 2}, {3, 4}}, (collect(loader(data.subset(set, {1, 2}), {transform = name}))))
    end)

    it("says what a module should give", function()
      local bad = module "return 7"
      fails_with(function() collect(loader(set, {transform = bad})) end, bad, "expected a function, or a table with a function 'transform'")
      fails_with(function() collect(loader(set, {collate = bad})) end, bad, "a function 'collate'")
      fails_with(function() data.module(bad) end, bad, "size() and get(i)")
      fails_with(function() data.module(module "return {size = function() return -1 end, get = print}") end, ">= 0", "-1")
      fails_with(function() data.module(module "return {size = print, get = print}", 3) end, "no options")
      fails_with(function() data.module(module "error 'while it loads'") end, "while it loads")
      local late = module "error 'while it loads'"
      fails_with(function() collect(loader(set, {transform = late})) end, late, "while it loads")
      local gives = module "return {collate = function() return print end, transform = function(x) return x end}"
      fails_with(function() collect(loader(set, {collate = gives})) end, "collate", gives, "tensors, numbers, strings")
      local nothing = module "return function() end"
      fails_with(function() collect(loader(set, {transform = nothing})) end, "gives nothing")
      fails_with(function() collect(loader(set, {collate = nothing})) end, "gives nothing")
      local uneven = module "return function(x, y) return tide.zeros(y:item()), y end"
      fails_with(function() collect(loader(set, {transform = uneven})) end, "batch")
      fails_with(function() collect(loader(set, {transform = module "return function() os.exit(3) end"})) end, "cannot end the process")
    end)

    it("may be left early and begun again, epochs inside epochs", function()
      local l = loader(set, {transform = module "return function(x, y) return x, y end", batch = 1})
      for _ = 1, 5 do for _, y in l:epoch() do if y:item() == 2 then break end end end
      local it = l:epoch()
      assert.equal(1, (select(2, it())):item())
      local n = 0
      for _ in l:epoch() do for _ in l:epoch() do n = n + 1 end end
      assert.equal(49, n)
      assert.equal(7, #select(2, collect(l)))
    end)

    it("records nothing, and gives leaves", function()
      local name = module [[
        local w = tide.ones(2):requires_grad_()
        return function(x, y) return x * w, y end]]
      for bx in loader(set, {transform = name}):epoch() do
        assert.is_false(bx.requires_grad)
        assert.is_true(bx.is_leaf)
      end
    end)

    it("runs the module in a state of its own", function()
      _G.workers_spec_global = 5
      local name = module "return function(x, y) return x * (workers_spec_global and 0 or 1), y end"
      assert.equal(2, (collect(loader(set, {transform = name})))[1][2])
      _G.workers_spec_global = nil
    end)
  end)
end

describe("what is random in a module", function()
  local noisy = module [[
    return function(x, y) return tide.cat({x, tide.rand(1), tide.tensor {math.random()}, tide.randn(1)}), y end]]
  local function epochs(seed, workers, prefetch)
    tide.manual_seed(seed)
    local l = data.Loader(set, {batch = 2, shuffle = true, transform = noisy, workers = workers, prefetch = prefetch})
    local xs, ys = collect(l)
    return xs, ys, (collect(l))
  end

  it("is the same for any number of workers, new for each epoch, and another for another seed", function()
    local xs, ys, second = epochs(3, 0)
    for workers = 1, 4 do
      local a, b, c = epochs(3, workers, workers % 2 == 0 and 5 or 1)
      assert.same(xs, a)
      assert.same(ys, b)
      assert.same(second, c)
    end
    assert.is_false(xs[1][3] == second[1][3])
    assert.is_false(xs[1][3] == (epochs(4, 2))[1][3])
  end)

  it("differs from sample to sample, and goes with the sample, not with its place in the epoch", function()
    local seen = {}
    tide.manual_seed(3)
    local state = tide.random_state()
    local function run(indices)
      tide.set_random_state(state)
      local xs, ys = collect(data.Loader(data.subset(set, indices), {batch = 2, transform = noisy, workers = 2}))
      for i, row in ipairs(xs) do
        local key = table.concat(row, " ", 3)
        assert.is_true(seen[ys[i]] == nil or seen[ys[i]] == key)
        seen[ys[i]] = key
      end
    end
    run {1, 2, 3, 4, 5, 6, 7}
    run {7, 3, 1}
    local different = {}
    for _, key in pairs(seen) do different[key] = true end
    local n = 0
    for _ in pairs(different) do n = n + 1 end
    assert.equal(7, n)
  end)
end)

describe("options of a Loader with modules", function()
  it("refuse a module that workers cannot find, with the search path", function()
    fails_with(function() data.Loader(set, {transform = "no_such_module"}) end, "workers_spec.lua:", "transform", "'no_such_module'",
               package.path, package.cpath)
    fails_with(function() data.Loader(set, {collate = "no_such_module"}) end, "collate", "'no_such_module'")
    fails_with(function() data.module "no_such_module" end, "'no_such_module'")
    package.preload.workers_spec_preloaded = function() return print end
    fails_with(function() data.Loader(set, {transform = "workers_spec_preloaded"}) end, "read it from a file")
  end)

  it("refuse what they cannot be, and what cannot go to a worker", function()
    local name = module "return function(x) return x end"
    fails_with(function() data.Loader(set, {transform = name, collate = print}) end, "collate", "the name of a module")
    fails_with(function() data.Loader(set, {collate = 3}) end, "collate", "a function")
    fails_with(function() data.Loader(set, {transform = ""}) end, "transform", "the name of a module")
    local takes = module "return function() return {size = function() return 1 end, get = function() return 1 end} end"
    fails_with(function() collect(data.Loader(data.module(takes, {f = print}), {})) end, "a function cannot go to another Lua state")
    local cycle = {}
    cycle.cycle = cycle
    fails_with(function() collect(data.Loader(data.module(takes, cycle), {})) end, "levels")
  end)

  it("take a collate function, which runs on the script's thread", function()
    local here = {}
    local l = data.Loader(set, {batch = 3, collate = function(samples)
      here[#here + 1] = #samples
      return samples[1][1], #samples
    end})
    local sum = 0
    for bx, n in l:epoch() do sum = sum + bx[1]:item() * n end
    assert.same({3, 3, 1}, here)
    assert.equal(1 * 3 + 7 * 3 + 13, sum)
  end)
end)

describe("a worker's state", function()
  it("is collected, and what batches held is given back", function()
    if sanitized then return pending "sanitizers do not reuse memory" end
    local name = module [[
      return function(x, y)
        local waste = {}
        for i = 1, 20 do waste[i] = tide.zeros(100, 100) + i end
        return tide.zeros(1000) + waste[1]:size(1), y, ("text"):rep(1000) .. y:item()
      end]]
    local collate = module [[
      return function(samples)
        local x = {}
        for i, s in ipairs(samples) do x[i] = s[1] end
        return tide.stack(x)
      end]]
    local l = data.Loader(set, {batch = 2, transform = name, collate = collate, workers = 2})
    local function run(n) for _ = 1, n do for _ in l:epoch() do end end end
    run(30)
    local before, peak = resident(), 0
    for _ = 1, 30 do
      run(3)
      peak = math.max(peak, tide.memory("cpu").current)
    end
    assert.is_true(peak < 96 * 2 ^ 20, ("%d MiB of tensors"):format(peak // 2 ^ 20))
    assert.is_true(resident() - before < 32 * 1024, ("grew by %d KiB"):format(resident() - before))
  end)

  it("goes with its loader, in mid-epoch too", function()
    local name = module "return function(x, y) return x, y end"
    local function threads()
      local n = 0
      for _ in io.popen "ls /proc/$PPID/task":lines() do n = n + 1 end
      return n
    end
    collectgarbage(); collectgarbage()
    local before = threads()
    do
      local l = data.Loader(set, {batch = 1, transform = name, workers = 3})
      l:epoch()()
    end
    collectgarbage(); collectgarbage()
    assert.equal(before, threads())
  end)

  it("runs its ops on one thread", function()
    local name = module "return function(x, y) return x * 0 + tide.get_num_threads(), y end"
    assert.equal(1, (collect(data.Loader(set, {transform = name, workers = 2})))[1][1])
  end)
end)

describe("a process with such workers", function()
  local prelude = ([[
    package.path = '%s/?.lua;' .. package.path
    local tide = require "tide"
    local data = tide.data
    local set = data.TensorDataset(tide.ones(50, 3))
  ]]):format(dir)

  it("ends while they work", function()
    local slow = module "return function(x) for _ = 1, 100 do x = (x:reshape {3, 1}:matmul(x:reshape {1, 3})):sum {2} end return x end"
    local endless = module "return function(x) while true do x = x + 1 end end"
    for _, name in ipairs {slow, endless} do
      for _, last in ipairs {"os.exit(7)", "os.exit(7, true)"} do
        local output, status = tide_process(prelude .. ([[
          local it = data.Loader(set, {batch = 2, transform = '%s', workers = 2, prefetch = 4}):epoch()
          %s
        ]]):format(name, last))
        assert.equal(7, status, output)
        assert.equal("", output)
      end
    end
  end)

  -- A worker that sends the process the signal once, and then goes on and on.
  local forever = module [[
    return function(x)
      io.popen "kill -INT $PPID":close()
      while true do x = x + 1 end
    end]]
  local well = module "return function(x) return x + 1 end"
  local interrupted = ([[
    for _ = 1, times do
      print(pcall(function()
        for _ in data.Loader(set, {batch = 2, transform = '%s'}):epoch() do print 'not reached' end
      end))
    end
    local n = 0
    for x in data.Loader(set, {batch = 4, transform = '%s', workers = 2}):epoch() do n = n + x:sum():item() end
    print(n)
  ]]):format(forever, well)

  it("takes Ctrl-C at a line of the script while a worker loops, and goes on", function()
    local output, status = tide_process(prelude .. "local times = 2 " .. interrupted)
    assert.equal(0, status, output)
    assert.matches("^" .. ("false\t[^\n]*:%d+: interrupted\n"):rep(2) .. "300.0\n$", output)
  end)

  it("is the same under a stock interpreter", function()
    local interpreter = io.popen "command -v lua5.4":read "l"
    if not interpreter or sanitized then return pending "no lua5.4, or it lacks the sanitizers" end
    local broken = module "return function(x) error 'no' end"
    local name, top = os.tmpname(), build_dir()
    local f = assert(io.open(name, "w"))
    f:write(prelude, "local times = 1 ", interrupted, ([[ -- a second one would end that process
      print(pcall(function() for _ in data.Loader(set, {transform = '%s'}):epoch() do end end))
      for _ in data.Loader(set, {batch = 1, transform = '%s', workers = 3}):epoch() do break end
    ]]):format(broken, well))
    f:close()
    local p = io.popen(("LUA_PATH='%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua;;' LUA_CPATH='%s/lib/lua/5.4/?.so;;' %s %s 2>&1")
                         :format(top, top, top, interpreter, name))
    local output = p:read "a"
    p:close()
    os.remove(name)
    assert.matches("^false\t[^\n]*interrupted![^\n]*\n300.0\nfalse\t[^\n]*Loader: transform [^\n]* at sample 1: [^\n]*no\n", output)
  end)
end)
