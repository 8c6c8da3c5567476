--- Loaded by busted before each spec: shared helpers as globals of the tests alone.
local tide = require "tide"

--- Device that specs run on: TIDE_TEST_DEVICE, or the CPU.
_G.test_device = os.getenv "TIDE_TEST_DEVICE" or "cpu"

--- Whether the build has sanitizers: then memory sizes and speed say nothing.
_G.sanitized = os.getenv "TIDE_SANITIZED" ~= nil

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
