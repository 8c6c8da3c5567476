-- tostring(x): what a person reads.
local tide = require "tide"

local function lines(x)
  local list = {}
  for line in (tostring(x) .. "\n"):gmatch "(.-)\n" do list[#list + 1] = line end
  return list
end

describe("printing", function()
  it("shows a matrix in aligned columns, as a script would write it, and what it is", function()
    assert.same({"{{ 1.0000, -2.5000},", " { 3.0000,  4.2500}}", "[f32 (2, 2) cpu]"}, lines(tide.tensor {{1, -2.5}, {3, 4.25}}))
    assert.same({"{  1,  -2, 300}", "[i64 (3) cpu]"}, lines(tide.tensor({1, -2, 300}, {dtype = "i64"})))
    assert.same({"{ true, false}", "[bool (2) cpu]"}, lines(tide.tensor {true, false}))
  end)

  it("shows whole numbers without decimals", function()
    assert.equal("{1, 2, 3}", lines(tide.tensor {1, 2, 3})[1])
    assert.equal("7  [f32 () cpu]", tostring(tide.tensor(7)))
  end)

  it("shows large, small and far apart numbers by powers of ten", function()
    assert.equal("{1.500e+09, 2.000e+00}", lines(tide.tensor {1.5e9, 2})[1])
    assert.equal("{1.000e-05, 2.500e-04}", lines(tide.tensor {1e-5, 2.5e-4})[1])
  end)

  it("shows nan and inf", function()
    assert.equal("{ nan,  inf, -inf, 1}", (lines(tide.tensor {0 / 0, math.huge, -math.huge, 1})[1]:gsub(" +1}", " 1}")))
  end)

  it("separates matrices, and says where a gradient is wanted and what made a result", function()
    local x = tide.zeros(2, 1, 2, {requires_grad = true})
    assert.same({"{{{0, 0}},", "", " {{0, 0}}}", "[f32 (2, 1, 2) cpu, requires_grad]"}, lines(x))
    assert.matches("%[f32 %(%) cpu, by sum%]", tostring(x:sum()))
  end)

  it("shows what is empty", function()
    assert.same({"{}", "[f32 (0) cpu]"}, lines(tide.zeros(0)))
    assert.same({"{{},", " {}}", "[f32 (2, 0) cpu]"}, lines(tide.zeros(2, 0)))
  end)

  it("shows the edges of what is large", function()
    local s = lines(tide.arange(1, 2001))
    assert.equal("{   1,    2,    3, …, 1998, 1999, 2000}", s[1])
    s = lines(tide.zeros(100, 100))
    assert.equal(8, #s)
    assert.equal("{{0, 0, 0, …, 0, 0, 0},", s[1])
    assert.equal(" …,", s[4])
    assert.equal("[f32 (100, 100) cpu]", s[8])
    assert.is_true(#tostring(tide.zeros(10, 10, 10, 10)) < 10000)
  end)

  it("fills lines of a terminal", function()
    for _, line in ipairs(lines(tide.rand(200))) do assert.is_true(#line <= 100) end
  end)

  it("shows views and other dtypes as what they hold", function()
    assert.equal("{1, 3}", lines(tide.tensor({{1, 2}, {3, 4}})[{{}, 1}])[1])
    assert.equal("{1.5000, 2.0000}", lines(tide.tensor({1.5, 2}, {dtype = "bf16"}))[1])
    assert.equal("{  0, 255}", lines(tide.tensor({0, 255}, {dtype = "u8"}))[1])
  end)

  it("shows the edges of long axes, also of a tensor without elements", function()
    assert.is_true(#tostring(tide.zeros(1000000, 0)) < 200)
    assert.is_true(#tostring(tide.zeros(1 << 50, 4, 0)) < 400)
    assert.equal("{}", lines(tide.zeros(0, 1 << 40))[1])
  end)

  it("leaves no trace on the tape", function()
    local w = tide.tensor({1.5}, {requires_grad = true})
    local y = w * 2
    local _ = tostring(y)
    y:backward()
    assert.equal(2.0, w.grad:item())
  end)
end)
