-- Loading plugins from a script: what is wrong with one is a sentence that names it, and the process lives on.
local tide = require "tide"
local core = require "tide.core"

local hostile = build_dir() .. "/tests/plugins"
local dir -- of files that this spec makes
local quote = function(s) return "'" .. s .. "'" end

local function sh(command, ...)
  local p = assert(io.popen(command:format(...) .. " 2>&1; echo \" status $?\""))
  local text = p:read "a"
  p:close()
  local output, status = text:match "^(.*) status (%d+)\n$"
  return output, tonumber(status)
end
local function write(name, content)
  local path = dir .. "/" .. name
  local f = assert(io.open(path, "wb"))
  f:write(content)
  f:close()
  return path
end
local function read(path)
  local f = assert(io.open(path, "rb"))
  local s = f:read "a"
  f:close()
  return s
end
local has_cc = os.execute "command -v cc >/dev/null 2>&1"
local function compile(name, source, folder)
  local c, so = write(name .. ".c", source), (folder or dir) .. "/" .. name .. ".so"
  local flags = "-std=c11 -Wall -Werror -shared -fPIC -Icore/include -I" .. quote(build_dir() .. "/include")
  local output, status = sh("cc %s -o %s %s", flags, quote(so), quote(c))
  assert(status == 0, output)
  return so
end
local function state_of(path)
  for _, p in ipairs(tide.plugins()) do if p.path == path then return p.state, p.why end end
end

setup(function()
  dir = os.tmpname()
  os.remove(dir)
  assert(os.execute(("mkdir -m 700 %s"):format(quote(dir))))
end)
teardown(function() os.execute(("rm -rf %s"):format(quote(dir))) end)

describe("a plugin that is refused says why:", function()
  local cases = {
    bad_schema = {"BadSchema", "kernel", "8 bytes", "4"},
    broken_overlay = {"test.overlaid@cpu", "run"},
    duplicate = {"op \"relu\"", "libtide"},
    half_silent = {"reg()", "without saying why"},
    half_way = {"the licence server does not answer"},
    larger_table = {"td_layer", "size", "newer headers"},
    lying_abi = {"descriptor", "7.0", "1.0"},
    no_desc = {"td_plugin_desc"},
    no_reg = {"reg"},
    reg_pending = {"RegPendingToo", "forward1 and forward"},
    unannounced = {"layer:Unannounced", "announce"},
    unregistered = {"layer:Unregistered", "does not register"},
    unresolved = {"hostile_symbol_of_nobody"},
    wrong_desc_size = {"descriptor", "bytes"},
    wrong_magic = {"0xdeadbeef", "0x45444954"},
    wrong_major = {"ABI 2.0", "1.0"},
    wrong_minor = {"ABI 1.99", "1.0"},
    wrong_opt_size = {"td_opt", "equal"},
  }
  local welcome = {bad_infer = true, bad_layer = true, nan_kernel = true, overlay = true, shorter_table = true}
  for name, texts in pairs(cases) do
    it(name, function()
      local path = ("%s/%s.so"):format(hostile, name)
      local before = tide.memory("cpu").current
      local message = fails_with(function() tide.plugin(path) end, name, table.unpack(texts))
      assert.falsy(message:find("\n", 1, true))
      assert.truthy(message:find("plugins_spec.lua:", 1, true))
      local again = fails_with(function() tide.plugin(path) end, table.unpack(texts))
      assert.equal(message:match "plugin .*", again:match "plugin .*")
      local state, why = state_of(path)
      assert.equal("refused", state)
      assert.truthy(message:find(why, 1, true))
      assert.equal(before, tide.memory("cpu").current)
    end)
  end
  it("one from another major ABI without running any of its code", function()
    assert.is_nil(os.getenv "TIDE_TEST_OPENED")
  end)
  it("nothing of one that failed half way stays", function()
    fails_with(function() return tide.nn.HalfWay end, "half_way")
    fails_with(function() return core.op "half.way" end, "half_way")
    fails_with(function() return tide.nn.Announced end, "unannounced")
    assert.equal(2, tide.relu(tide.tensor {-1, 2}):sum():item())
  end)
  it("this list knows every file there", function()
    for file in sh("ls %s", quote(hostile)):gmatch "([%w_]+)%.so" do
      assert.truthy(cases[file] or welcome[file], file)
    end
  end)
end)

describe("a file that is no plugin:", function()
  local function refused(path, ...) fails_with(function() tide.plugin(path) end, "plugin", ...) end
  it("missing", function() refused(dir .. "/nowhere.so", "nowhere.so", "No such file") end)
  it("empty", function() refused(write("empty.so", ""), "empty.so", "ELF") end)
  it("a text", function() refused(write("text.so", ("not a plugin\n"):rep(100)), "text.so", "ELF") end)
  it("a directory", function() refused(dir, dir, "regular file") end)
  it("a device", function() refused("/dev/zero", "/dev/zero", "regular file") end)
  it("a fifo, without waiting for a writer", function()
    assert(os.execute(("mkfifo %s/fifo.so"):format(quote(dir))))
    refused(dir .. "/fifo.so", "regular file")
  end)
  it("a broken link", function()
    assert(os.execute(("ln -s nowhere %s/link.so"):format(quote(dir))))
    refused(dir .. "/link.so", "link.so")
  end)
  it("an ELF file that is no plugin", function()
    refused(build_dir() .. "/lib/libtide.so", "libtide", ".tide")
  end)
  it("one that may not be read", function()
    local path = write("locked.so", "x")
    os.execute(("chmod 000 %s"):format(quote(path)))
    local f = io.open(path)
    if f then f:close() return pending "this user may read everything" end
    refused(path, "locked.so", "Permission denied")
  end)
  it("no path at all", function()
    refused("", "path")
    refused(nil, "expected a path", "nil")
    refused({}, "expected a path", "table")
    refused(("x"):rep(10000), "xxx")
  end)
  it("one that is cut short anywhere is refused or still whole", function()
    local whole = read(hostile .. "/wrong_major.so") -- its text alone is read, so whatever is left of it is never opened
    local path
    for i = 0, 60 do
      path = write(("cut%d.so"):format(i), whole:sub(1, #whole * i // 60))
      local message = fails_with(function() tide.plugin(path) end, "cut" .. i)
      assert.falsy(message:find("\n", 1, true))
    end
  end)
end)

describe("a plugin whose parts are wrong is refused when they are used:", function()
  local x = tide.ones(2)
  setup(function()
    for _, name in ipairs {"bad_layer", "bad_infer", "nan_kernel"} do tide.plugin(("%s/%s.so"):format(hostile, name)) end
  end)
  local layers = {
    BadNull = "NULL without saying why", BadSilent = "forward", BadPending = "the coffee is cold", BadNoOutput = "gave no output",
    BadInit = "init", BadSelf = "nested", BadTwice = "\"w\" already", BadShape = "-3", BadHuge = "memory", BadKind = "magic",
    BadChild = "oops", BadLate = "init()", BadLost = "nowhere", BadLive = "live",
  }
  for name, text in pairs(layers) do
    it("layer " .. name, function() fails_with(function() return tide.nn[name]()(x) end, name, text) end)
  end
  local ops = {
    axes = "99 axes", negative = "-5", huge = "overflow", dtype = "1234", silent = "without saying why", outputs = "1000",
  }
  for name, text in pairs(ops) do
    it("op bad." .. name, function() fails_with(function() return core.op("bad." .. name)(x) end, "bad." .. name, text) end)
  end
  it("a kernel that fails without a word", function()
    fails_with(function() return core.op "nan.silent"(x) end, "nan.silent", "cpu", "without saying why")
  end)
  it("a kernel that makes NaN is named in anomaly mode", function()
    assert.is_true(core.op "nan.maker"(x):isnan():all():item())
    tide.set_anomaly(true)
    local ok, message = pcall(core.op "nan.maker", x)
    tide.set_anomaly(false)
    assert.is_false(ok)
    assert.truthy(message:find("nan.maker", 1, true))
  end)
  it("and what was there before still works", function() assert_close({2, 2}, x + x) end)
end)

describe("a plugin that fits", function()
  local path = hostile .. "/shorter_table.so"
  it("from older headers, with a shorter table, is welcome", function()
    assert.is_true(tide.plugin(path))
    assert_close({1, 2}, tide.nn.ShorterTable()(tide.tensor {1, 2}))
    assert.equal("loaded", state_of(path))
  end)
  it("may be loaded again, under other names too", function()
    assert(os.execute(("ln -sf %s %s/again.so"):format(quote(path), quote(dir))))
    for _ = 1, 3 do assert.is_true(tide.plugin(path)) end
    assert.is_true(tide.plugin(dir .. "/again.so"))
    local n = 0
    for _, p in ipairs(tide.plugins()) do if p.name == "shorter_table" then n = n + 1 end end
    assert.equal(1, n)
  end)
  it("is refused as a copy of a file that is loaded", function()
    tide.plugin(path)
    local copy = write("copy.so", read(path))
    fails_with(function() tide.plugin(copy) end, "ShorterTable", "already")
    assert_close({1, 2}, tide.nn.ShorterTable()(tide.tensor {1, 2}))
  end)
end)

describe("a third party's plugin", function()
  local found, source
  setup(function()
    if not has_cc then return end
    found = dir .. "/found"
    assert(os.execute(("mkdir -m 755 %s"):format(quote(found))))
    source = {}
    for line in read "plugins/README.md":match "\n(    #include.-TD_PLUGIN[^\n]*)\n":gmatch "[^\n]*" do
      source[#source + 1] = line:sub(5)
    end
    compile("scale", table.concat(source, "\n") .. "\n", found)
  end)
  local path = function() return ("TIDE_PLUGIN_PATH=%s"):format(quote(found)) end

  it("as its tutorial writes it, is found by name on TIDE_PLUGIN_PATH", function()
    if not has_cc then return pending "there is no C compiler" end
    local output, status = tide_process([[
      local tide = require "tide"
      for _, p in ipairs(tide.plugins()) do if p.name == "scale" then print(p.state) end end
      local layer = tide.nn.Scale {factor = 3}
      local x = tide.tensor({1, 2}, {requires_grad = true})
      layer(x):sum():backward()
      print(table.concat(layer(x):totable(), " "), table.concat(x.grad:totable(), " "))
      for _, p in ipairs(tide.plugins()) do if p.name == "scale" then print(p.state, p.licence, p.provides) end end
      print(pcall(tide.nn.Scale, {factor = "x"}))
    ]], path())
    assert.equal(0, status, output)
    assert.truthy(output:find("^found\n3.0 6.0\t3.0 3.0\nloaded\tMIT\tlayer:Scale\nfalse\t.*Scale.*factor.*number"), output)
  end)
  it("is listed by tide plugins", function()
    if not has_cc then return pending "there is no C compiler" end
    local output, status = sh("%s %s/bin/tide plugins", path(), quote(build_dir()))
    assert.equal(0, status)
    assert.truthy(output:find "scale +1.0 +found +layer:Scale\n")
    assert.truthy(output:find "linear +[%d.]+ +found +layer:Linear\n")
    assert.truthy(output:find(found, 1, true))
  end)
  it("passes tide check", function()
    if not has_cc then return pending "there is no C compiler" end
    local output, status = sh("%s/bin/tide check %s/scale.so", quote(build_dir()), quote(found))
    assert.equal(0, status, output)
    assert.truthy(output:find "%d+ checks of 1 subject passed, 0 failed")
  end)
  it("that crashes ends the child of tide check alone", function()
    if not has_cc then return pending "there is no C compiler" end
    if sanitized then return pending "sanitizers catch the signal" end
    local text = table.concat(source, "\n"):gsub("return td_mul%b();", "(void)x; (void)o; *(volatile int *)0 = 1; return x;")
    local output, status = sh("%s/bin/tide check %s", quote(build_dir()), quote(compile("crash", text .. "\n")))
    assert.equal(1, status, output)
    assert.truthy(output:find("signal 11", 1, true), output)
  end)
  it("with a kernel for an op that nobody has is told so", function()
    local output, status = sh("%s/bin/tide check %s/overlay.so", quote(build_dir()), quote(hostile))
    assert.equal(1, status)
    assert.truthy(output:find "^FAILED op test.overlaid: it is there: [^\n]*\n", output)
  end)
  it("that is refused is one line in tide check", function()
    local output, status = sh("%s/bin/tide check %s/wrong_magic.so", quote(build_dir()), quote(hostile))
    assert.equal(1, status)
    assert.truthy(output:find "^tide check: plugin wrong_magic [^\n]*0xdeadbeef[^\n]*\n$", output)
  end)
  it("that fails a check is told so", function()
    local output, status = sh("%s/bin/tide check %s/bad_layer.so", quote(build_dir()), quote(hostile))
    assert.equal(1, status)
    assert.truthy(output:find("FAILED layer BadNull: two samples", 1, true), output)
  end)
  it("in a directory where anybody may write is not trusted", function()
    if not has_cc then return pending "there is no C compiler" end
    os.execute(("mkdir %s/open && cp %s/scale.so %s/open && chmod 777 %s/open"):format(quote(dir), quote(found), quote(dir), quote(dir)))
    local code = [[print(pcall(function() return require "tide".nn.Scale() end))
                   for _, p in ipairs(require "tide".plugins()) do if p.state == "refused" then print(p.path, p.why) end end]]
    local open = ("TIDE_PLUGIN_PATH=%s/open"):format(quote(dir))
    local output = tide_process(code, open)
    assert.truthy(output:find "^false\t.*Scale", output)
    assert.truthy(output:find(dir .. "/open\t.*anybody may write"), output)
    assert.truthy(tide_process(code, open .. " TIDE_ALLOW_WORLD_WRITABLE=1"):find "^true")
  end)
  it("whose overlay is found runs instead of the op's own kernel, and one that is broken does not", function()
    if not has_cc then return pending "there is no C compiler" end
    os.execute(("mkdir -m 755 %s/overlays && cp %s/*overlay.so %s/overlays"):format(quote(dir), quote(hostile), quote(dir)))
    compile("overlaid", [[
#include <tide/plugin.h>
static bool parts(const td_call *c, td_tensor **out) { return (out[0] = td_neg(c->in[0])) != NULL; }
static const td_op op = {.size = sizeof op, .name = "test.overlaid", .doc = "-x", .in = "x", .out = "y", .decompose = parts};
static bool reg(void) { return td_add_op(&op); }
TD_PLUGIN("overlaid", "1.0", "MIT", "op:test.overlaid", reg, NULL)
]], dir .. "/overlays")
    local code = [[local tide = require "tide"
      local f = require "tide.core".op "test.overlaid"
      print(f(tide.tensor {1}):item(), f(tide.tensor({1}, {dtype = "f64"})):item())]]
    local output = tide_process(code, ("TIDE_PLUGIN_PATH=%s/overlays"):format(quote(dir)))
    assert.equal("101.0\t-1.0\n", output)
    os.execute(("rm %s/overlays/overlay.so"):format(quote(dir)))
    output = tide_process(code, ("TIDE_PLUGIN_PATH=%s/overlays"):format(quote(dir)))
    assert.equal("-1.0\t-1.0\n", output)
  end)
end)
