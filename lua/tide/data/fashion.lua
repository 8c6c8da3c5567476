--- Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747) and files of its form: 28 x 28 grey images in ten classes.
local datasets = require "tide.data.dataset"
local idx = require "tide.data.idx"
local util = require "tide.util"

local M = {}

local NAMES = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"}
local FILES = {train = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"},
               test = {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}}

local function exists(path)
  local f = io.open(path, "rb")
  if f then f:close() end
  return f ~= nil
end

--- The file in a directory, plain or compressed; nil where it is not there.
local function find(dir, name)
  for _, ending in ipairs {"", ".gz"} do
    local path = dir .. "/" .. name .. ending
    if exists(path) then return path end
  end
end

--- The first directory that has the training images.
local function directory(dirs)
  for _, dir in ipairs(dirs) do
    if find(dir, FILES.train[1]) then return dir end
  end
end

--- One part as a dataset: images u8 (N, 1, H, W), given as f32 in 0..1, and labels 1, 2, …
local function part(who, dir, files, classes)
  local paths = {}
  for i, name in ipairs(files) do
    paths[i] = find(dir, name) or util.fail("%s: there is no %s or %s.gz in %s", who, name, name, dir)
  end
  local x, y = idx(paths[1]), idx(paths[2])
  if x.dtype ~= "u8" or x:dim() ~= 3 then
    util.fail("%s: %s: expected images u8 (N, H, W), got %s", who, paths[1], util.describe(x))
  end
  if y.dtype ~= "u8" or y:dim() ~= 1 or y:size(1) ~= x:size(1) then
    util.fail("%s: %s: expected %d labels, got %s", who, paths[2], x:size(1), util.describe(y))
  end
  local most = y:numel() > 0 and y:amax():item() or 0
  if most >= #classes then util.fail("%s: %s: expected labels below %d, got %d", who, paths[2], #classes, most) end
  return datasets.TensorDataset(x:unsqueeze(2), y:to "i64" + 1, {classes = classes, scale = 1 / 255})
end

local function both(who, dir, classes)
  return part(who, dir, FILES.train, classes), part(who, dir, FILES.test, classes)
end

--- Fashion-MNIST: 60,000 training images and 10,000 test images (N, 1, 28, 28), which loaders give as f32 in 0..1, and labels
--- 1..10, named in `classes`. Looked for in opts.dir, in the directories of $TIDE_DATA, and where Debian installs it.
---@param opts table?   dir
---@return tide.data.TensorDataset train, tide.data.TensorDataset test
function M.fashion_mnist(opts)
  local o = util.named("fashion_mnist", opts, {dir = false})
  local dirs = {}
  if o.dir then
    dirs = {o.dir}
  else
    for dir in (os.getenv "TIDE_DATA" or ""):gmatch "[^:]+" do
      dirs[#dirs + 1] = dir .. "/fashion-mnist"
      dirs[#dirs + 1] = dir
    end
    dirs[#dirs + 1] = "/usr/share/datasets/fashion-mnist"
    dirs[#dirs + 1] = "/usr/share/dataset-fashion-mnist"
  end
  local dir = directory(dirs)
  if not dir then
    util.fail("fashion_mnist: the files are in none of %s; install them (apt-get install dataset-fashion-mnist) or name "
              .. "their directory in TIDE_DATA", table.concat(dirs, ", "))
  end
  return both("fashion_mnist", dir, NAMES)
end

--- MNIST's handwritten digits, or files of their form, from a directory. Label 1 is the digit 0, and so on.
---@param opts table   dir
---@return tide.data.TensorDataset train, tide.data.TensorDataset test
function M.mnist(opts)
  local o = util.named("mnist", opts, {dir = false})
  local dir = o.dir or os.getenv "TIDE_DATA" and os.getenv "TIDE_DATA":match "[^:]+" .. "/mnist"
  if not dir then util.fail "mnist: expected data.mnist {dir = …}, a directory with train-images-idx3-ubyte and its companions" end
  local first = FILES.train[1]
  if not find(dir, first) then util.fail("mnist: there is no %s or %s.gz in %s", first, first, dir) end
  local digits = {}
  for i = 1, 10 do digits[i] = tostring(i - 1) end
  return both("mnist", dir, digits)
end

return M
