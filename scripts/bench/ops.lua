--- Tide's kernels beside oneDNN's, op by op, over the shapes of the benchmark's networks and of VGG and ResNet-18 like ones.
---     usage: tide scripts/bench/ops.lua [--threads 2] [--seconds 0.1] [--rounds 3] [--library build/bench/ops_onednn] [--only WORD]
--- Pooling, batch norm and matrix products are held against the library alone, which `cmake --build build --target bench_ops` makes a
--- program of; convolutions, which have an overlay, with oneDNN forced by TIDE_ONEDNN=1, reorders included. Microseconds of
--- a call, the least of some rounds, which are in turn; a ratio above 1: Tide's is faster.
local tide = require "tide"
local opt = tide.options {threads = 1, seconds = 0.1, rounds = 3, library = "build/bench/ops_onednn", only = "", conv = "",
                          tide = arg[-1] or "tide"}
tide.set_num_threads(opt.threads)
tide.manual_seed(1)

-- kind, n, c, h, w, kernel, stride, padding; for conv: results before the kernel
local shapes = {
  {"max_pool", 64, 6, 28, 28, 2, 2, 0}, {"max_pool", 64, 16, 10, 10, 2, 2, 0}, {"max_pool", 16, 64, 56, 56, 2, 2, 0},
  {"max_pool", 16, 256, 14, 14, 2, 2, 0}, {"max_pool", 8, 64, 56, 56, 3, 2, 1}, {"avg_pool", 32, 64, 8, 8, 8, 8, 0},
  {"avg_pool", 16, 64, 28, 28, 2, 2, 0}, {"avg_pool", 16, 512, 7, 7, 7, 7, 0},
  {"batch_norm", 32, 16, 32, 32}, {"batch_norm", 32, 32, 16, 16}, {"batch_norm", 32, 64, 8, 8}, {"batch_norm", 16, 64, 56, 56},
  {"batch_norm", 16, 256, 14, 14}, {"batch_norm", 16, 512, 7, 7},
  {"matmul", 64, 784, 256}, {"matmul", 64, 256, 128}, {"matmul", 64, 400, 120}, {"matmul", 512, 512, 512}, {"matmul", 2048, 128, 512},
  {"matmul", 32, 128, 512},
}
local convolutions = { -- n, c, o, h, w, kernel, stride, padding
  {32, 16, 32, 32, 32, 3, 2, 1}, {32, 32, 64, 16, 16, 3, 2, 1}, {8, 64, 128, 28, 28, 3, 2, 1}, {8, 256, 512, 14, 14, 3, 2, 1},
  {32, 16, 32, 32, 32, 1, 2, 0}, {32, 32, 64, 16, 16, 1, 2, 0}, {8, 64, 128, 28, 28, 1, 2, 0}, {8, 256, 512, 14, 14, 1, 2, 0},
  {8, 3, 64, 64, 64, 7, 2, 3}, {8, 64, 64, 28, 28, 3, 1, 1}, {8, 256, 256, 14, 14, 3, 1, 1}, {8, 256, 64, 28, 28, 1, 1, 0},
}

--- Least microseconds of a call of f.
local function time(f)
  local now, best = tide.time, math.huge
  f()
  local stop = now() + opt.seconds
  repeat
    local n, t0 = 0, now()
    local taken
    repeat
      f()
      n = n + 1
      taken = now() - t0
    until taken > opt.seconds / 10
    best = math.min(best, taken / n)
  until now() > stop
  return 1e6 * best
end

local function images(order, ...)
  local x = tide.randn(...)
  return order == "nhwc" and tide.channels_last(x):detach() or x
end

--- What is timed of a kind: its call and its gradient's.
local function calls(s, order)
  local kind, n, c, h, w, k, stride, pad = table.unpack(s)
  if kind == "matmul" then
    local a, b = tide.randn(n, c), tide.randn(c, h)
    return function() return tide.matmul(a, b) end
  end
  local x = images(order, n, c, h, w)
  if kind == "batch_norm" then
    local weight, bias, g, rstd = tide.randn(c), tide.randn(c), images(order, n, c, h, w), tide.ones(c)
    local relu = {activation = "relu"}
    return function() return tide.batch_norm(x, weight, bias, nil, relu) end,
      function() return tide.batch_norm_backward(g, x, weight, bias, nil, bias, rstd, relu) end
  end
  local o = {kernel = k, stride = stride, padding = pad}
  if kind == "avg_pool" then
    local g = tide.avg_pool2d(x, o)                      -- its strides tell the order, which those of randn of one pixel do not
    return function() return tide.avg_pool2d(x, o) end,
      function() return tide.avg_pool2d_backward(g, {height = h, width = w, kernel = k, stride = stride, padding = pad}) end
  end
  local y, places = tide.max_pool2d(x, o), {}
  local g = images(order, y:shape())
  for i = 0, y:size(3) - 1 do                            -- every winner in the middle of its window
    for j = 0, y:size(4) - 1 do places[#places + 1] = (i * stride + k // 2 - pad) * w + j * stride + k // 2 - pad + 1 end
  end
  local index = tide.zeros(y:shape()):to "i64" + tide.tensor(places, {dtype = "i64"}):reshape(y:size(3), y:size(4))
  if order == "nhwc" then index = tide.channels_last(index) end
  return function() return tide.max_pool2d(x, o) end, function() return tide.max_pool2d_backward(g, index, h, w) end
end

--- The rates of convolutions in this process, by whatever kernels its environment chooses.
local function time_convolutions()
  for _, s in ipairs(convolutions) do
    local n, c, out, h, w, k, stride, pad = table.unpack(s)
    for _, order in ipairs {"nchw", "nhwc"} do
      local x, weight, o = images(order, n, c, h, w), tide.randn(out, c, k, k), {stride = stride, padding = pad}
      local g = images(order, tide.conv2d(x, weight, nil, o):shape())
      local left = (h + 2 * pad - k) % stride
      print(time(function() return tide.conv2d(x, weight, nil, o) end),
        time(function() return tide.conv_transpose2d(g, weight, nil, {stride = stride, padding = pad, output_padding = left}) end),
        time(function() return tide.conv2d_weight_grad(x, g, {kernel = k, stride = stride, padding = pad}) end))
    end
  end
end

local function lines_of(command)
  local list, p = {}, assert(io.popen(command, "r"))
  for l in p:lines() do list[#list + 1] = l end
  p:close()
  return list
end

local function row(name, mine, theirs)
  print(("%-48s %10.1f %10.1f %7.2f"):format(name, mine, theirs, theirs / mine))
end

if opt.conv ~= "" then return time_convolutions() end

print(("%-48s %10s %10s %7s"):format(("op, %d thread%s"):format(opt.threads, opt.threads > 1 and "s" or ""), "Tide us", "oneDNN us",
  "ratio"))

local function against_library()
  local list, asked = {}, {}
  for _, s in ipairs(shapes) do
    for _, order in ipairs(s[1] == "matmul" and {"nchw"} or {"nchw", "nhwc"}) do
      local forward, backward = calls(s, order)
      for i, f in ipairs {forward, backward} do
        local kind = s[1] .. (i == 2 and "_grad" or "")
        if (kind .. " " .. order):find(opt.only) then
          local size = {}
          for k = 2, 8 do size[k - 1] = s[k] or (k == 8 and 0 or 1) end
          list[#list + 1] = {name = ("%s %s %s"):format(kind, order, table.concat(s, " ", 2)), f = f}
          asked[#asked + 1] = ("%s %s %s\n"):format(kind, order, table.concat(size, " "))
        end
      end
    end
  end
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(table.concat(asked))
  file:close()
  for _ = 1, opt.rounds do
    for _, r in ipairs(list) do r.mine = math.min(r.mine or math.huge, time(r.f)) end
    local theirs = lines_of(("OMP_NUM_THREADS=%d %s %s <%s"):format(opt.threads, opt.library, opt.seconds, path))
    for i, r in ipairs(list) do r.theirs = math.min(r.theirs or math.huge, tonumber(theirs[i]) or math.huge) end
  end
  os.remove(path)
  for _, r in ipairs(list) do row(r.name, r.mine, r.theirs) end
end

local function against_overlay()
  local command = ("%s %s --conv yes --threads %d --seconds %s"):format(opt.tide, arg[0], opt.threads, opt.seconds)
  local best = {{}, {}}                                  -- of side, line and place in it
  for _ = 1, opt.rounds do
    for side, times in ipairs(best) do
      for i, text in ipairs(lines_of(("TIDE_ONEDNN=%d %s"):format(side - 1, command))) do
        times[i] = times[i] or {}
        local j = 0
        for v in text:gmatch "%S+" do
          j = j + 1
          times[i][j] = math.min(times[i][j] or math.huge, tonumber(v) or math.huge)
        end
      end
    end
  end
  local line = 0
  for _, s in ipairs(convolutions) do
    for _, order in ipairs {"nchw", "nhwc"} do
      line = line + 1
      for j, kind in ipairs {"conv2d", "conv2d_grad_x", "conv2d_grad_w"} do
        row(("%s %s %s"):format(kind, order, table.concat(s, " ")), best[1][line][j], best[2][line][j])
      end
    end
  end
end

against_library()
if ("conv"):find(opt.only) then against_overlay() end
