--- A progress bar on the terminal, with rate and time left; silent where there is no terminal.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

local EVERY = 0.1                                        -- seconds between two drawings
local BLOCKS = {"▏", "▎", "▍", "▌", "▋", "▊", "▉"}

--- 75 → "1:15"; 4000 → "1:06:40"
---@param seconds number
---@return string
function M.clock(seconds)
  if seconds ~= seconds or seconds == math.huge then return "-:--" end
  local s = math.floor(seconds + 0.5)
  if s >= 3600 then return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60) end
  return ("%d:%02d"):format(s // 60, s % 60)
end

--- 12.3/s, or seconds for each where that is slow.
local function rate_text(per_second)
  if per_second ~= per_second or per_second == math.huge or per_second <= 0 then return "" end
  if per_second >= 100 then return ("%.0f/s"):format(per_second) end
  return per_second >= 1 and ("%.1f/s"):format(per_second) or ("%.1f s each"):format(1 / per_second)
end

--- A bar of `width` cells, filled to `share`.
local function cells(share, width)
  local full = math.max(0, math.min(share, 1)) * width
  local whole = math.floor(full)
  local part = math.floor((full - whole) * 8)
  local bar = ("█"):rep(whole) .. (part > 0 and BLOCKS[part] or "")
  local used = whole + (part > 0 and 1 or 0)
  return bar .. ("·"):rep(width - used)
end

---@class tide.progress.Bar
local Bar = {__name = "progress bar"}
Bar.__index = Bar

local function shown(show)
  if not show then return "" end
  if type(show) == "function" then return tostring(show()) end
  if type(show) == "table" and show.value then
    local v = show:value()
    local text = type(v) == "number" and ("%.4f"):format(v) or tostring(v)
    return (show.name and show.name .. " " or "") .. text
  end
  return tostring(show)
end

--- The line as it would be drawn at a time, without the terminal's codes.
---@param now number     seconds, on the clock of core.time()
---@param width integer  columns of the terminal
---@return string
function Bar:line(now, width)
  local passed = now - self.start
  local rate = passed > 0 and self.done / passed or 0
  local left = rate > 0 and (self.total - self.done) / rate or math.huge
  local ended = self.done >= self.total
  local tail = (" %d/%d  %s  %s  %s"):format(self.done, self.total, ended and M.clock(passed) or M.clock(left) .. " left",
                                            rate_text(rate), self.text)
  tail = tail:gsub("%s+$", "")
  local room = width - 1 - (utf8.len(self.label) or #self.label) - 1 - (utf8.len(tail) or #tail)
  local bar = room >= 8 and cells(self.total > 0 and self.done / self.total or 1, math.min(room, 30)) or ""
  return self.label .. " " .. bar .. tail
end

local function draw(self, now)
  self.drawn = now
  self.text = shown(self.show)
  self.out:write("\r", self:line(now, core.terminal_width() or 80), "\27[K")
  self.out:flush()
end

--- Counts steps; draws at most ten times a second.
---@param n integer?   1
function Bar:advance(n)
  self.done = self.done + (n or 1)
  if not self.live then return end
  local now = core.time()
  if now - self.drawn >= EVERY then draw(self, now) end
end

--- Draws for the last time and ends the line. More calls do nothing.
function Bar:finish()
  if self.ended then return end
  self.ended = true
  if not self.live then return end
  draw(self, core.time())
  self.out:write "\n"
  self.out:flush()
end

--- A loop that is left by break or by an error ends the line too.
Bar.__close = Bar.finish

--- A progress bar for `total` steps.
---@param label string
---@param total integer
---@param opts table?   show: a metric or a function whose text stands behind the bar; live: draw even without a terminal
---@return tide.progress.Bar
function M.bar(label, total, opts)
  local o = util.named("progress.bar", opts, {show = false, live = false, out = false})
  util.expect(type(label) == "string" or label == true, "progress.bar", "label", "a string", label)
  local live = o.live or (core.isatty(1) and core.isatty(2))
  local now = core.time()
  return setmetatable({label = label == true and "" or label, total = util.integer("progress.bar", "total", total, 0), done = 0,
                       show = o.show, start = now, drawn = now, live = live, text = "", out = o.out or io.stderr}, Bar)
end

--- Counts an iterator's rounds by a bar: `for i, x in progress.each("rows", ipairs(list)) do`.
---@param label string
---@param total integer
---@param f function   and its state and first value, as a generic for takes them
---@return function
function M.each(label, total, f, state, first)
  local bar, control = M.bar(label, total), first
  local function step(...)
    control = ...
    if control == nil then bar:finish() else bar:advance() end
    return ...
  end
  return function() return step(f(state, control)) end, nil, nil, bar
end

return M
