-- Text as classes of characters, and random pieces of it.
local tide = require "tide"
local texts = require "tide.data.text"

describe("data.text", function()
  it("counts the different bytes in order, as classes 1, 2, …", function()
    local t = texts.from_string "banana\n"
    assert.same({"\n", "a", "b", "n"}, t.vocabulary)
    assert.same({3, 2, 4, 2, 4, 2, 1}, t.ids:totable())
    assert.equal(7, #t)
    assert.equal("i64", t.ids.dtype)
  end)

  it("turns strings to classes and back; what it does not know is left out", function()
    local t = texts.from_string "abc\0\255"
    assert.equal("cab\255\0", t:decode(t:encode "cab\255\0"))
    assert.equal("cab", t:decode(t:encode "c-a-b"))
    assert.equal("", t:decode(t:encode ""))
    assert.equal(0, t:encode("xyz"):size(1))
    assert.equal("cb", t:decode {4, 3})
    fails_with(function() t:decode {9} end, "text: there is no class 9")
  end)

  it("gives pieces, and the same one character later", function()
    tide.manual_seed(1)
    local t = texts.from_string "abcdefgh"
    local x, y = t:batch(50, 5)
    assert.equal("(50, 5)", tostring(x:shape()))
    assert.is_true((x + 1):equal(y)) -- the classes of this text follow each other
    assert.equal(1, x:amin():item())
    assert.equal(3, x:select(2, 1):amax():item())
    assert.equal(8, y:amax():item())
    x, y = t:batch(2, 7)
    assert.equal("abcdefg", t:decode(x[1]))
    assert.equal("bcdefgh", t:decode(y[2]))
    fails_with(function() t:batch(2, 8) end, "pieces of 8 characters need a text of 9, it has 8")
  end)

  it("reads files, whole ones of more than a chunk too", function()
    local name = os.tmpname()
    local f = assert(io.open(name, "wb"))
    f:write(("abc"):rep(50000))
    f:close()
    local t = tide.data.text(name)
    os.remove(name)
    assert.equal(150000, #t)
    assert.equal("abcabc", t:decode(t.ids:narrow(1, 65536, 6)))
    fails_with(function() tide.data.text "/no/such/file" end, "text: ", "/no/such/file")
    fails_with(function() tide.data.text(3) end, "expected the name of a file")
  end)
end)
