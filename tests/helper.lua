--- Loaded by busted before each spec: shared helpers as globals of the tests alone.
local tide = require "tide"

--- Device that specs run on: TIDE_TEST_DEVICE, or the CPU.
_G.test_device = os.getenv "TIDE_TEST_DEVICE" or "cpu"

--- Whether the build has sanitizers: then memory sizes and speed say nothing.
_G.sanitized = os.getenv "TIDE_SANITIZED" ~= nil

--- Environment of processes that load oneDNN: LeakSanitizer falls over the memory that its thread-local storage was in.
_G.no_leak_check = _G.sanitized and "ASAN_OPTIONS=detect_leaks=0 " or ""

--- Asserts that f raises one error whose message contains every given text, and returns the message.
function _G.fails_with(f, ...)
  local ok, message = pcall(f)
  assert(not ok, "expected an error")
  message = tostring(message)
  for _, text in ipairs {...} do
    assert(message:find(text, 1, true), ("expected %q in the message: %s"):format(text, message))
  end
  return message
end

--- Asserts that two tensors have the same shape and nearly the same values.
function _G.assert_close(expected, got, tolerance)
  tolerance = tolerance or 1e-6
  local a, b = tide.tensor(expected, {dtype = "f64"}), got:to "cpu":to "f64"
  assert(a:shape() == b:shape(), ("expected shape %s, got %s"):format(a:shape(), b:shape()))
  assert(a:allclose(b, {rtol = tolerance, atol = tolerance}), ("expected %s, got %s"):format(tostring(a), tostring(b)))
end

--- The result of f where ops with a definition run by it, whatever kernels there are.
function _G.by_definition(f)
  local core = require "tide.core"
  local before = core.decompose(true)
  local ok, result = pcall(f)
  core.decompose(before)
  assert(ok, result)
  return result
end

--- Begins the code of processes that compare kernels for images: order(t, "last"|"strided"|…) lays t out anew, far(a, b) is the
--- greatest distance of a from b, in f64, as a part of b's greatest value.
_G.image_cases = [[
  local tide = require "tide"
  tide.manual_seed(3)
  local function order(t, how)
    if how == "last" then return tide.channels_last(t) end
    if how == "strided" then return tide.cat({t, t}, 4):slice(4, 1, 2 * t:size(4), 2):copy_(t) end
    return t
  end
  local function far(a, b)
    assert(a:shape() == b:shape())
    if b:numel() == 0 then return 0 end
    return ((a:to "f64" - b):abs():amax() / b:abs():amax()):item()
  end
]]

--- The tree that runs (build or installed prefix): its bin/tide, its tests/plugins.
function _G.build_dir()
  for _, dir in ipairs(tide.plugin_dirs()) do
    local top = dir:match "^(.*)/lib/tide/plugins$"
    if top then return top end
  end
  error "no plugin directory of a build is on the search path"
end

--- Runs Lua code by this build's interpreter in a process of its own: its output with errors, and its exit status.
--- before: what stands before the command in the shell, such as "OMP_NUM_THREADS=2".
function _G.tide_process(code, before)
  local name = os.tmpname()
  local f = assert(io.open(name, "w"))
  f:write(code)
  f:close()
  local p = assert(io.popen(("%s '%s/bin/tide' '%s' 2>&1; echo \" status $?\""):format(before or "", build_dir(), name)))
  local text = p:read "a"
  p:close()
  os.remove(name)
  local output, status = text:match "^(.*) status (%d+)\n$"
  return output, tonumber(status)
end
