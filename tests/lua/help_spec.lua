-- Help, and the reference that is made from it.
local tide = require "tide"
local core = require "tide.core"
local help = require "tide.help"
local doc = require "tide.doc"

describe("help", function()
  it("explains every layer, loss, optimizer and op", function()
    for _, kind in ipairs {"layer", "loss", "optim", "op"} do
      for _, name in ipairs(core.layers(kind)) do
        local text = assert(help.text(name))
        assert.truthy(text:find(name, 1, true), name)
      end
    end
  end)

  it("shows options with types, defaults and limits", function()
    local text = help.text "Conv2d"
    assert.truthy(text:find("nn.Conv2d(in_channels, out_channels, kernel_size, stride = 1", 1, true))
    assert.truthy(text:find "padding%s+integers%s+= 0%s+zeros around x %(>= 0%)")
    assert.truthy(help.text "Adam":find("optim.Adam(params, {lr = 1e-3", 1, true))
  end)

  it("explains functions and methods of Lua", function()
    assert.truthy(help.text "data.Loader":find("shuffle", 1, true))
    assert.truthy(help.text "nn.Module:to":find("device", 1, true))
    assert.truthy(help.text "tide.gradcheck":find("central differences", 1, true))
    assert.truthy(help.text "item":find("Tensor:item()", 1, true))
    assert.truthy(help.text "schedule.cosine" or help.text "cosine")
  end)

  it("suggests a name", function()
    local text, message = help.text "Conv3D"
    assert.is_nil(text)
    assert.truthy(message:find("did you mean 'Conv2d'?", 1, true), message)
    fails_with(function() tide.help "Conv3D" end, "help_spec.lua:", "Conv2d")
  end)

  it("has an overview", function() assert.truthy(help.overview():find("CrossEntropyLoss", 1, true)) end)
end)

describe("doc comments", function()
  it("stand at every function that a user calls", function()
    for _, file in ipairs(doc.files) do
      local head = file.path or #doc.head(file) > 0
      assert(head, file.module .. " has no head comment")
      assert(#doc.functions(file) > 0, file.module .. " has no documented function")
      for _, f in ipairs(doc.functions(file)) do assert(#f.text > 0, f.full .. " has no text") end
    end
  end)

  it("describe every method of tensors that the binding adds", function()
    local index = doc.index()
    for name, f in pairs(core.Tensor) do
      local op = name:gsub("_$", "")
      if type(f) == "function" and not core.ops[name] and not core.ops[op] then
        assert(index["Tensor." .. name] or index["Tensor:" .. name], "core.d.lua lacks " .. name)
      end
    end
  end)
end)
