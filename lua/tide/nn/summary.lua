--- tostring(net): the tree of layers with output shapes, where they are known, and parameter counts.
---
--- Shapes are known after net:summary(x). For a tree of Sequentials and C layers whose input can only be of one size, as a
--- Linear behind a Flatten makes sure, tostring finds the size by itself, by running one sample.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

local shapes = setmetatable({}, {__mode = "k"})          -- module → "(N, 32, 28, 28)"
local recording                                          -- table that a dry run fills, or nil

local TRIALS = {28, 32, 64, 8, 16, 24, 48, 96, 128, 224}
local SECONDS = 0.3                                      -- for all trials together

--- The first axis counts samples, so it is shown as N.
local function shape_text(y)
  if not core.is_tensor(y) then return nil end
  local parts = {}
  for i, n in ipairs(y:shape()) do parts[i] = i == 1 and "N" or tostring(n) end
  return "(" .. table.concat(parts, ", ") .. ")"
end

--- Runs f with every module below net noting the shape of its output.
local function record(net, f)
  local found, undo = {}, {}
  for _, m in ipairs(net:modules()) do
    local class = getmetatable(m)
    local own = class.__call
    if not undo[class] then
      undo[class] = own
      class.__call = function(self, ...)
        local y = table.pack(own(self, ...))
        if recording then recording[self] = shape_text(y[1]) end
        return table.unpack(y, 1, y.n)
      end
    end
  end
  recording = found
  local ok, err = pcall(f)
  recording = nil
  for class, call in pairs(undo) do class.__call = call end
  return ok, ok and found or err
end

--- Runs net on x in evaluation mode, without recording and without moving the random stream.
local function dry_run(net, x)
  local modes, state = {}, core.random_state()
  for i, m in ipairs(net:modules()) do modes[i] = {m, m.training} end
  net:eval()
  local ok, found = record(net, function() core.no_grad(net, x) end)
  for _, m in ipairs(modes) do m[1]:set_training(m[2]) end
  core.set_random_state(state)
  return ok, found
end

--- C layers below in the order in which they run; nil where a module of another kind is among them.
local function leaves_of(m, list)
  if getmetatable(m) == require "tide.nn.containers".Sequential then
    for _, child in ipairs(m) do
      if not leaves_of(child, list) then return nil end
    end
    return list
  end
  if not m.info then return nil end
  list[#list + 1] = m
  return list
end

--- Shape of one sample with a spatial extent s, from the first layer that says anything; nil where nothing does.
local function sample_shape(leaves, s)
  for _, m in ipairs(leaves) do
    local o, name = m:options(), m.__name
    if name == "Linear" then return {1, o.in_features} end
    if name == "Conv2d" or name == "ConvTranspose2d" then return {1, o.in_channels, s, s}, true end
    if name == "BatchNorm1d" then return {1, o.num_features} end
    if name == "BatchNorm2d" then return {1, o.num_features, s, s}, true end
    if name == "Embedding" then return nil end
  end
end

local function first_tensor(net) return net:parameters()[1] end

local function try(net, shape, like)
  return dry_run(net, core.ops.zeros(shape, {dtype = like.dtype, device = like.device}))
end

--- Shapes of all outputs where the input can only have one size, else nil.
local function guess(net)
  local leaves = leaves_of(net, {})
  local like = leaves and first_tensor(net)
  local shape, spatial
  if like then shape, spatial = sample_shape(leaves, TRIALS[1]) end
  if not shape then return nil end
  if not spatial then
    local ok, found = try(net, shape, like)
    return ok and found or nil
  end
  local start = core.time()
  for _, s in ipairs(TRIALS) do
    if core.time() - start > SECONDS then return nil end
    local ok, found = try(net, sample_shape(leaves, s), like)
    if ok then
      local other = try(net, sample_shape(leaves, 2 * s), like)
      return not other and found or nil                  -- any size will do: then no shape is the shape
    end
  end
end

--- Runs the module on x and notes the shapes of all outputs.
---@param net tide.nn.Module
---@param x tide.Tensor|integer[]   an input, or the shape of one
---@return string   what tostring(net) now shows
function M.of(net, x)
  if not core.is_tensor(x) then
    util.expect(type(x) == "table", net.__name .. ":summary", "x", "a Tensor or a shape", x)
    local like = first_tensor(net)
    x = core.ops.zeros(x, {dtype = like and like.dtype, device = like and like.device})
  end
  local ok, found = dry_run(net, x)
  if not ok then error(found, 0) end
  for m, text in pairs(found) do shapes[m] = text end
  return tostring(net)
end

--- Parameters of a module and all below that were not counted before.
local function count_new(m, counted)
  local n = 0
  for _, p in m:named_parameters() do
    local id = core.identity(p)
    if not counted[id] then n = n + p:numel() end
  end
  return n
end

local function mark(m, counted)
  for _, own in ipairs(m:own_tensors()) do
    if not own.is_buffer then counted[core.identity(own.tensor)] = true end
  end
end

--- Adds a row for m and rows for its children.
local function rows_of(m, label, depth, known, counted, rows, seen)
  local again = seen[m]
  seen[m] = true
  local children = {}
  for name, child in m:children() do children[#children + 1] = {name, child} end
  local indent = ("  "):rep(depth)
  local what = m.__name .. "(" .. (#children == 0 and m:describe() .. ")" or "")
  local row = {text = indent .. label .. what, shape = known[m] or shapes[m], n = not again and count_new(m, counted) or 0}
  if again then row.text = row.text .. (#children == 0 and "" or "…)") .. "  (shared)" end
  rows[#rows + 1] = row
  if again then return end
  mark(m, counted)
  if #children == 0 then return end
  row.n = nil                                            -- its children show theirs
  local own = 0
  for _, t in ipairs(m:own_tensors()) do if not t.is_buffer then own = own + t.tensor:numel() end end
  if own > 0 then row.n = own end
  for _, c in ipairs(children) do
    local place = tonumber(c[1]) and ("[%s] "):format(c[1]) or c[1] .. " = "
    rows_of(c[2], place, depth + 1, known, counted, rows, seen)
  end
  rows[#rows + 1] = {text = indent .. ")"}
end

--- Widths that count letters, not bytes.
local function pad(s, width) return s .. (" "):rep(width - (utf8.len(s) or #s)) end

--- What tostring(net) shows.
---@param net tide.nn.Module
---@return string
function M.text(net)
  local n = net:num_parameters()                         -- refuses cycles
  local known = not shapes[net] and guess(net) or {}
  local rows, wide, wide_shape = {}, 0, 0
  rows_of(net, "", 0, known, {}, rows, {})
  if #rows == 1 then return rows[1].text end
  for _, r in ipairs(rows) do
    wide = math.max(wide, utf8.len(r.text) or #r.text)
    wide_shape = math.max(wide_shape, #(r.shape or ""))
  end
  local lines = {}
  for i, r in ipairs(rows) do
    local line = pad(r.text, wide)
    if wide_shape > 0 then line = line .. "  " .. pad(r.shape or "", wide_shape) end
    if r.n and r.n > 0 then line = line .. ("  %12s"):format(util.thousands(r.n)) end
    lines[i] = line:gsub("%s+$", "")
  end
  lines[#lines + 1] = util.thousands(n) .. " parameters"
  return table.concat(lines, "\n")
end

return M
