--- Curves on the terminal, in braille dots.
local util = require "tide.util"

local M = {}

local DOTS = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}   -- by row and column of a cell (Unicode block 28)

local function range(values)
  local low, high = math.huge, -math.huge
  for _, v in ipairs(values) do
    if v == v and v ~= math.huge and v ~= -math.huge then low, high = math.min(low, v), math.max(high, v) end
  end
  return low, high
end

--- A curve as text: values from left to right, the greatest and the least at the left edge.
---@param values number[]|tide.Tensor
---@param opts table?   width = 60 (cells), height = 10 (cells), title
---@return string
function M.curve(values, opts)
  local o = util.named("plot.curve", opts, {width = 60, height = 10, title = false})
  if type(values) == "userdata" and values.totable then values = values:totable() end
  util.expect(type(values) == "table" and #values > 0, "plot.curve", "values", "a list of numbers", values)
  local width, height = util.integer("plot.curve", "width", o.width, 1), util.integer("plot.curve", "height", o.height, 1)
  local low, high = range(values)
  if low > high then util.fail "plot.curve: values: expected at least one finite number" end
  local span, cells = high > low and high - low or 1, {}
  local columns, rows = 2 * width, 4 * height
  for c = 0, columns - 1 do
    local v = values[1 + math.floor(c * (#values - 1) / math.max(columns - 1, 1) + 0.5)]
    if v == v and v >= low and v <= high then
      local r = math.floor((high - v) / span * (rows - 1) + 0.5)
      local at = (r // 4) * width + c // 2
      cells[at] = (cells[at] or 0) | DOTS[r % 4 + 1][c % 2 + 1]
    end
  end
  local lines = {o.title or nil}
  for y = 0, height - 1 do
    local line = {}
    for x = 0, width - 1 do line[x + 1] = utf8.char(0x2800 + (cells[y * width + x] or 0)) end
    local mark = y == 0 and ("%10.4g "):format(high) or y == height - 1 and ("%10.4g "):format(low) or (" "):rep(11)
    lines[#lines + 1] = mark .. table.concat(line)
  end
  return table.concat(lines, "\n")
end

return M
