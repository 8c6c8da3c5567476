--- A dataset that draws its samples: circles and squares of random size and place, in noise. A loader's workers require this module in
--- Lua states of their own (scripts/workers.lua); random numbers are seeded for each sample before get is called.
local tide = require "tide"

---@param options {n: integer, side: integer, noise: number}
return function(options)
  local side = options.side
  local rows = tide.arange(1, side + 1):view {side, 1}
  local columns = rows:transpose(1, 2)
  return {
    size = function() return options.n end,
    get = function(i)
      local class = (i - 1) % 2 + 1
      local radius = side / 8 + math.random() * side / 8
      local function place() return radius + math.random() * (side - 2 * radius) end
      local dy, dx = (rows - place()):abs(), (columns - place()):abs()
      local distance = class == 1 and (dx * dx + dy * dy):sqrt() or tide.maximum(dx + dy * 0, dy + dx * 0)
      local image = (distance - radius):abs():lt(1):to "f32" + options.noise * tide.randn(side, side)
      return image:unsqueeze(1), class
    end,
  }
end
