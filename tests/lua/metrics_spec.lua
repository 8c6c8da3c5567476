-- Metrics, the progress bar, logs, curves, and the training loop.
local tide = require "tide"
local metrics = tide.metrics

local scores = tide.tensor {{3, 1, 2}, {1, 2, 3}, {2, 3, 1}, {0, 0, 1}}
local labels = tide.tensor({1, 3, 1, 3}, {dtype = "i64"})

describe("metrics.Mean", function()
  it("weighs numbers and tensors by their counts", function()
    local mean = metrics.Mean()
    mean:add(1, 3)
    mean:add(tide.tensor(5.0))
    assert.equal(2, mean:value())
    assert.equal("loss 2.0000", tostring(mean))
    mean:reset()
    assert.is_true(mean:value() ~= mean:value())
  end)
  it("does not keep a graph alive", function()
    local mean, x = metrics.Mean(), tide.ones(1):requires_grad_()
    mean:add((x * 2):sum())
    assert.equal(2, mean:value())
  end)
  it("refuses what is no number", function()
    fails_with(function() metrics.Mean():add(tide.ones(2)) end, "one element", "f32 (2)")
  end)
end)

describe("metrics.Accuracy", function()
  it("counts greatest scores that are right", function()
    local accuracy = metrics.Accuracy()
    accuracy:add(scores, labels)
    assert.equal(0.75, accuracy:value())
  end)
  it("takes single scores as yes or no", function()
    local accuracy = metrics.Accuracy()
    accuracy:add(tide.tensor {{1.5}, {-1}, {2}, {-3}}, tide.tensor {{1.0}, {0}, {0}, {0}})
    assert.equal(0.75, accuracy:value())
  end)
  it("refuses shapes that do not fit", function()
    fails_with(function() metrics.Accuracy():add(scores, labels:narrow(1, 1, 2)) end, "Accuracy", "4 class indices", "i64 (2)")
  end)
end)

describe("metrics.TopK", function()
  it("counts classes among the k greatest", function()
    local top = metrics.TopK(2)
    top:add(scores, labels)
    assert.equal(1, top:value())
    assert.equal("top 2 1.0000", tostring(top))
  end)
end)

describe("metrics.ConfusionMatrix", function()
  local confusion = metrics.ConfusionMatrix {"cat", "dog", "eel"}
  confusion:add(scores, labels)
  it("counts true classes against predicted ones", function()
    assert.same({{1, 1, 0}, {0, 0, 0}, {0, 0, 2}}, confusion:value())
    local recall, precision = confusion:rates()
    assert.equal(0.5, recall[1])
    assert.is_true(recall[2] ~= recall[2])
    assert.equal(0, precision[2])
  end)
  it("prints as a table", function()
    local text = tostring(confusion)
    assert.truthy(text:find("cat", 1, true) and text:find("50.0 %%") and text:find("3 of 4 right"))
  end)
  it("refuses classes that it does not have", function()
    fails_with(function() metrics.ConfusionMatrix(2):add(labels, labels) end, "1 to 2", "3")
  end)
end)

describe("metrics by name", function()
  it("are found, or named in an error", function()
    assert.equal("top 5", metrics.named "top5".name)
    fails_with(function() metrics.named "acuracy" end, "accuracy", "acuracy")
  end)
end)

describe("the progress bar", function()
  local progress = tide.progress
  it("shows share, count, time left and rate", function()
    local bar = progress.bar("epoch 1", 10)
    bar.done, bar.start = 5, 100
    local line = bar:line(105, 80)
    assert.truthy(line:find("^epoch 1 █"))
    assert.truthy(line:find("5/10  0:05 left  1.0/s", 1, true), line)
    bar.done = 10
    assert.truthy(bar:line(110, 80):find("10/10  0:10", 1, true))
    assert.is_true(utf8.len(bar:line(110, 40)) < 40)
  end)
  it("shows a metric, and draws rarely", function()
    local drawn = 0
    local out = {write = function() drawn = drawn + 1 end, flush = function() end}
    local bar = progress.bar("x", 1000, {live = true, out = out, show = function() return "loss 1" end})
    for _ = 1, 1000 do bar:advance() end
    bar:finish()
    bar:finish()
    assert.is_true(drawn < 30)
    assert.truthy(bar:line(0, 80):find "loss 1")
  end)
  it("is silent without a terminal", function()
    local bar = progress.bar("x", 1, {out = {write = function() error "written" end}})
    if not bar.live then
      bar:advance()
      bar:finish()
    end
  end)
  it("writes times as clocks do", function()
    assert.equal("1:15", progress.clock(75))
    assert.equal("1:06:40", progress.clock(4000))
    assert.equal("-:--", progress.clock(math.huge))
  end)
end)

describe("a log", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)
  local function text()
    local f <close> = assert(io.open(path))
    return f:read "a"
  end

  it("as CSV has a head and a line for each row", function()
    local log <close> = tide.logger.csv(path)
    log:write {loss = 0.5, epoch = 1, note = 'a "b", c'}
    log:write {loss = tide.tensor(0.25), epoch = 2}
    assert.equal('epoch,loss,note\n1,0.5,"a ""b"", c"\n2,0.25,\n', text())
    fails_with(function() log:write {lost = 1} end, "lost", "epoch, loss, note")
  end)
  it("as JSON has an object for each line", function()
    local log <close> = tide.logger.jsonl(path)
    log:write {loss = 0.5, epoch = 1, name = "a\n"}
    assert.same({loss = 0.5, epoch = 1, name = "a\n"}, tide.json.decode(text()))
  end)
  it("goes on with an old file", function()
    tide.logger.csv(path, {fields = {"a"}}):write {a = 1}
    tide.logger.csv(path, {fields = {"a"}, append = true}):write {a = 2}
    assert.equal("a\n1\n2\n", text())
  end)
  it("that cannot be opened is an error", function()
    fails_with(function() tide.logger.csv "/no/such/dir/x.csv" end, "log:", "/no/such/dir")
  end)
end)

describe("plot.curve", function()
  it("has the extremes at its edge", function()
    local text = tide.plot.curve({1, 2, 4}, {width = 4, height = 2, title = "loss"})
    assert.truthy(text:find("loss", 1, true) and text:find(" 4 ", 1, true) and text:find(" 1 ", 1, true))
  end)
end)

describe("train.fit", function()
  it("trains, evaluates, logs, keeps the best and stops early", function()
    tide.manual_seed(1)
    local nn = tide.nn
    local x = tide.randn(200, 2)
    local y = (x:select(2, 1):gt(0)):to "i64" + 1
    local set = tide.data.TensorDataset(x, y)
    local net = nn.Linear(2, 2)
    local path, best = os.tmpname(), os.tmpname()
    local log = tide.logger.jsonl(path)
    local history = tide.train.fit(net, set, {
      optimizer = tide.optim.Adam(net, {lr = 0.1}), criterion = nn.CrossEntropyLoss(), epochs = 40, validation = set,
      patience = 3, log = log, checkpoint = best, progress = false, clip = 1,
    })
    log:close()
    assert.is_true(#history < 40)
    assert.is_true(history[#history].accuracy > 0.95)
    assert.is_true(history[#history].train_loss < history[1].train_loss)
    local n = 0
    for _ in io.lines(path) do n = n + 1 end
    assert.equal(#history, n)
    assert.truthy((tide.load(best)).weight)
    os.remove(path)
    os.remove(best)
  end)
  it("needs an optimizer and a loss", function()
    fails_with(function() tide.train.fit(tide.nn.Linear(1, 1), nil, {}) end, "train.fit", "optimizer")
  end)
end)
