--- Transforms of samples: crops, flips, normalisation. They are in C and run on a loader's workers; what is random in them depends
--- on the seed, the epoch and the sample, so batches are the same with any number of workers.
---
---     local T = data.transforms
---     local augment = {T.RandomCrop(32, {padding = 4}), T.RandomHorizontalFlip(), T.Normalize({0.49, 0.48, 0.45}, {0.25, 0.24, 0.26})}
---     local loader = data.Loader(train, {batch = 128, shuffle = true, transform = augment})
---
--- Samples are (C, H, W), (H, W) or (C), u8 or f32; results are f32. A transform called with a batch (N, …) transforms it at once.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

---@class tide.data.Transform
---@overload fun(x: tide.Tensor): tide.Tensor
local Transform = {__name = "Transform"}
Transform.__index = Transform
M.Transform = Transform

function Transform:__tostring()
  local names = {}
  for i, s in ipairs(self.steps) do names[i] = s.name end
  return table.concat(names, ", ")
end

--- A batch, transformed on this thread, with random choices of its own.
function Transform:__call(x)
  util.expect(core.is_tensor(x), tostring(self), "x", "a Tensor", x)
  self.made = self.made or core.chain(self.steps)
  local seed, place = 0, 0
  if self.made:is_random() then
    local state = core.random_state()
    core.random()
    seed, place = state[1], state[2]
  end
  return core.augment(x, self.made, seed, place, 1)
end

local function step(fields) return setmetatable({steps = {fields}}, Transform) end

--- A list of numbers, all finite, each accepted.
local function numbers(who, what, v, accept)
  local list = type(v) == "number" and {v} or v
  util.expect(type(list) == "table" and #list > 0, who, what, "a number or a list of numbers", v)
  for i, x in ipairs(list) do
    util.number(who, ("%s[%d]"):format(what, i), x)
    util.expect(accept(x), who, ("%s[%d]"):format(what, i), "a number > 0", x)
  end
  return list
end

local function any() return true end
local function positive(x) return x > 0 end

--- Height and width from one number or a list of two.
local function size_of(who, size)
  local h, w = size, size
  if type(size) == "table" then h, w = size[1], size[2] end
  return util.integer(who, "size", h, 1), util.integer(who, "size", w, 1)
end

--- left, right, top, bottom from one number, a list of two (columns, rows) or of four.
local function border_of(who, padding)
  local p = type(padding) == "table" and padding or {padding}
  util.expect(#p == 1 or #p == 2 or #p == 4, who, "padding", "one number, or a list of 2 or 4", padding)
  for i, v in ipairs(p) do p[i] = util.integer(who, "padding", v, 0) end
  if #p == 1 then return {p[1], p[1], p[1], p[1]} end
  return #p == 2 and {p[1], p[1], p[2], p[2]} or {p[1], p[2], p[3], p[4]}
end

local function chance(who, p)
  if p == nil then return 0.5 end
  util.number(who, "p", p)
  util.expect(p >= 0 and p <= 1, who, "p", "a number from 0 to 1", p)
  return p
end

--- (x - mean) / std of each channel. One number stands for all channels.
---@param mean number|number[]
---@param std number|number[]
---@return tide.data.Transform
function M.Normalize(mean, std)
  local m, s = numbers("Normalize", "mean", mean, any), numbers("Normalize", "std", std, positive)
  util.expect(#m == #s, "Normalize", "std", ("as many numbers as mean, %d"):format(#m), #s)
  return step {name = "Normalize", kind = "normalize", mean = m, std = s}
end

--- A border around the image.
---@param padding integer|integer[]   all sides, {columns, rows} or {left, right, top, bottom}
---@param opts table?   fill = 0
---@return tide.data.Transform
function M.Pad(padding, opts)
  local o = util.named("Pad", opts, {fill = 0})
  return step {name = "Pad", kind = "pad", pad = border_of("Pad", padding), fill = util.number("Pad", "fill", o.fill)}
end

--- The middle of the image.
---@param size integer|integer[]   one side, or {height, width}
---@return tide.data.Transform
function M.CenterCrop(size)
  local h, w = size_of("CenterCrop", size)
  return step {name = "CenterCrop", kind = "center_crop", h = h, w = w}
end

--- A window at a random place of the image with a border around it.
---@param size integer|integer[]   one side, or {height, width}
---@param opts table?   padding = 0 (as in Pad), fill = 0
---@return tide.data.Transform
function M.RandomCrop(size, opts)
  local h, w = size_of("RandomCrop", size)
  local o = util.named("RandomCrop", opts, {padding = 0, fill = 0})
  return step {name = "RandomCrop", kind = "random_crop", h = h, w = w, pad = border_of("RandomCrop", o.padding),
               fill = util.number("RandomCrop", "fill", o.fill)}
end

--- Left and right exchanged, in some of the images.
---@param p number?   0.5: in how many
---@return tide.data.Transform
function M.RandomHorizontalFlip(p)
  return step {name = "RandomHorizontalFlip", kind = "flip_x", p = chance("RandomHorizontalFlip", p)}
end

--- Top and bottom exchanged, in some of the images.
---@param p number?   0.5: in how many
---@return tide.data.Transform
function M.RandomVerticalFlip(p)
  return step {name = "RandomVerticalFlip", kind = "flip_y", p = chance("RandomVerticalFlip", p)}
end

--- A rectangle of some of the images becomes one value (Zhong et al. 2020, arXiv:1708.04896).
---@param p number?     0.5: in how many
---@param opts table?   area = {0.02, 0.33}: its share of the image; ratio = {0.3, 3.3}: height / width; fill = 0
---@return tide.data.Transform
function M.RandomErasing(p, opts)
  local o = util.named("RandomErasing", opts, {area = {0.02, 0.33}, ratio = {0.3, 3.3}, fill = 0})
  local area, ratio = numbers("RandomErasing", "area", o.area, positive), numbers("RandomErasing", "ratio", o.ratio, positive)
  util.expect(#area == 2 and area[1] <= area[2] and area[2] <= 1, "RandomErasing", "area", "two shares, the least first", o.area)
  util.expect(#ratio == 2 and ratio[1] <= ratio[2], "RandomErasing", "ratio", "two ratios, the least first", o.ratio)
  return step {name = "RandomErasing", kind = "erase", p = chance("RandomErasing", p), area = area, ratio = ratio,
               fill = util.number("RandomErasing", "fill", o.fill)}
end

--- Several transforms as one, in order.
---@param list tide.data.Transform[]
---@return tide.data.Transform
function M.Compose(list)
  util.expect(type(list) == "table" and getmetatable(list) == nil, "Compose", "list", "a list of transforms", list)
  local steps = {}
  for i, t in ipairs(list) do
    util.expect(getmetatable(t) == Transform, "Compose", ("list[%d]"):format(i), "a transform of data.transforms", t)
    table.move(t.steps, 1, #t.steps, #steps + 1, steps)
  end
  util.expect(#steps <= 16, "Compose", "list", "at most 16 transforms", #steps)
  return setmetatable({steps = steps}, Transform)
end

--- A transform or a list of them as the core's chain, and its steps.
function M.chain(who, t)
  if getmetatable(t) ~= Transform then
    util.expect(type(t) == "table", who, "transform", "a transform, a list of them, or a function", t)
    t = M.Compose(t)
  end
  return core.chain(t.steps), t.steps
end

return M
