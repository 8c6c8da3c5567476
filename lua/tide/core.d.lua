--- What the C binding has beside ops, in the form of doc comments: for help, the reference and the type files.
---@meta tide.core
-- luacheck: ignore 212

---@class tide.Tensor
---@field dtype string            "f32", "f64", "f16", "bf16", "i64", "i32", "u8" or "bool"
---@field device string           "cpu", "cuda:0"
---@field grad tide.Tensor?       the gradient that backward has gathered; may be set to nil
---@field requires_grad boolean
---@field is_leaf boolean         whether no recorded op made it
---@field ndim integer            number of axes
---@field made_by string?         name of the op that made it, where it was recorded
---@operator add(tide.Tensor|number): tide.Tensor
---@operator sub(tide.Tensor|number): tide.Tensor
---@operator mul(tide.Tensor|number): tide.Tensor
---@operator div(tide.Tensor|number): tide.Tensor
---@operator pow(tide.Tensor|number): tide.Tensor
---@operator mod(tide.Tensor|number): tide.Tensor
---@operator idiv(tide.Tensor|number): tide.Tensor
---@operator unm: tide.Tensor
---@operator len: integer
local Tensor = {}

---@class tide
local M = {}

--- A tensor from nested tables, a number or a boolean.
---
---     tide.tensor({{1, 2}, {3, 4}}, {dtype = "f64", requires_grad = true})
---@param data any
---@param opts table?   dtype = "f32" ("bool" for booleans), device, requires_grad
---@return tide.Tensor
function M.tensor(data, opts) end

--- A tensor from raw bytes, little-endian and row-major.
---@param bytes string
---@param dtype string
---@param shape integer[]
---@return tide.Tensor
function M.from_string(bytes, dtype, shape) end

--- Whether x is a tensor.
---@param x any
---@return boolean
function M.is_tensor(x) end

--- Calls f(...) without recording, and returns its results.
---@param f function
---@param ... any
---@return any ...
function M.no_grad(f, ...) end

--- Calls f(...) with recording, inside no_grad too.
---@param f function
---@param ... any
---@return any ...
function M.enable_grad(f, ...) end

---@class tide.Capture
---@overload fun(...): any
local Capture = {}

--- Numbers of calls, replays, recordings and programs held; of the last program its kernels, the dead ones that were dropped, the
--- constant ones that ran once, those that run tile by tile, those that are run a second time (`recomputed`) and the bytes that this saves
--- (`saved_bytes`), the bytes of its passing results with and without reuse of buffers; why the last call was not replayed.
---@return table<string, integer|string> stats
function Capture:stats() end

--- What the program that was used last runs, a line a kernel: op, dtype, shapes, the script's line.
---@return string[]
function Capture:kernels() end

--- Forgets all recordings.
---@return tide.Capture self
function Capture:reset() end

--- Everything that Lua computes inside f is frozen when it is replayed, `if step > 100` included.
---
---     local step = tide.capture(function(x, y)
---       adam:zero_grad()
---       local loss = criterion(net(x), y)
---       loss:backward()
---       adam:step()
---       return loss
---     end)
---     for x, y in loader:epoch() do local loss = step(x, y) end
---
--- A function that runs f and records the kernels it calls. After two equal calls it replays them instead: no Lua, no dispatch, no tape,
--- dead results dropped, buffers reused. Arguments and results are tensors, numbers, strings, booleans or nil; tensors are bound
--- anew at each call. Random ops draw fresh numbers, learning rates and step counts stay live. It runs f as usual where shapes,
--- dtypes, strides, devices, other arguments, training or gradient mode, constant options of optimizers or the parameters' memory
--- differ from what was recorded; tensors that f looks up must be the same ones at each call. Reading a value for the script
--- (`item`, `totable`, printing), random numbers for the script and results that still need gradients are errors.
---
--- With `check`, or in all captures with TIDE_CAPTURE=check in the environment, each call that could be replayed also runs f from the same
--- state, and an error names op and line of the first difference.
--- Element-wise ops, norms and the like whose results are needed soon and again much later (in backward) run twice, if that lowers the
--- memory that the program needs: the same bits for a few percent more work. `recompute = false` keeps their results instead.
---@param f function
---@param opts table?   check = true, recompute = false
---@return tide.Capture
function M.capture(f, opts) end

--- Sets whether ops are recorded; returns whether they were.
---@param on boolean
---@return boolean before
function M.set_grad_enabled(on) end

--- Whether ops are recorded.
---@return boolean
function M.is_grad_enabled() end

--- Gradients of outputs for inputs, without touching .grad.
---@param outputs tide.Tensor|tide.Tensor[]
---@param inputs tide.Tensor|tide.Tensor[]
---@param opts table?   grad_outputs: weights of the outputs (1 for one element), create_graph: to differentiate again,
---                     retain_graph, allow_unused: false in place of a gradient that is not there
---@return tide.Tensor|tide.Tensor[]
function M.grad(outputs, inputs, opts) end

--- Anomaly mode: the first op that makes a NaN is an error that names it and its line. Returns the mode before.
---@param on boolean
---@return boolean before
function M.set_anomaly(on) end

--- Begins the stream of random numbers anew: the same seed gives the same weights, masks and shuffles everywhere.
---@param seed integer
function M.manual_seed(seed) end

--- A random number from the seeded stream: in [0, 1), or an integer 1..m, or m..n.
---@param m integer?
---@param n integer?
---@return number
function M.random(m, n) end

--- The state of the random stream, for a checkpoint.
---@return integer[]
function M.random_state() end

--- Goes on where random_state() was taken.
---@param state integer[]
function M.set_random_state(state) end

--- The devices of this machine: name, description, memory, free, or why there is none.
---@return table[]
function M.devices() end

--- The device where tensors are made.
---@return string
function M.default_device() end

--- Sets the device where tensors are made.
---@param device string   "cpu", "cuda"
function M.set_default_device(device) end

--- Waits until a device has done all its work.
---@param device string?   the default one
function M.synchronize(device) end

--- Bytes in tensors now (current), at most (peak), and taken from the system (reserved); allocations so far (allocs).
---@param device string?
---@return table
function M.memory(device) end

--- Starts memory().peak anew.
function M.reset_peak_memory() end

--- Gives cached memory back to the system.
function M.empty_cache() end

--- Sets the number of threads that kernels use.
---@param n integer
function M.set_num_threads(n) end

--- The number of threads that kernels use.
---@return integer
function M.get_num_threads() end

--- Loads a plugin file. This is code: load what you trust.
---@param path string
function M.plugin(path) end

--- The plugins that were found: path, name, version, licence, provides, state, why.
---@return table[]
function M.plugins() end

--- The directories in which plugins are looked for.
---@return string[]
function M.plugin_dirs() end

--- Seconds on a clock that never goes back.
---@return number
function M.time() end

--- The extents, as a list that prints as "(2, 3)" and compares by value.
---@return integer[]
function Tensor:shape() end

--- The extent of one axis.
---@param axis integer   1..; negative counts from the end
---@return integer
function Tensor:size(axis) end

--- The number of axes.
---@return integer
function Tensor:dim() end

--- The number of elements.
---@return integer
function Tensor:numel() end

--- How far apart neighbours along each axis lie, in elements.
---@return integer[]
function Tensor:stride() end

--- The value of a tensor of one element.
---@return number|boolean
function Tensor:item() end

--- All elements as nested tables; a number for a tensor without axes.
---@return any
function Tensor:totable() end

--- All elements as raw bytes, little-endian and row-major.
---@return string
function Tensor:bytes() end

--- Whether the elements lie in row-major order without gaps.
---@return boolean
function Tensor:is_contiguous() end

--- x itself where it is contiguous, else a copy that is.
---@return tide.Tensor
function Tensor:contiguous() end

--- A copy with memory of its own. Differentiable.
---@return tide.Tensor
function Tensor:clone() end

--- The same data without history: shares memory, needs no gradient.
---@return tide.Tensor
function Tensor:detach() end

--- On another device, or in another dtype; x itself where it is so already. Differentiable.
---@param where string   "cuda", "cpu", "f64" …
---@return tide.Tensor
function Tensor:to(where) end

--- The same values in the dtype and on the device of another tensor.
---@param other tide.Tensor
---@return tide.Tensor
function Tensor:type_as(other) end

--- On the CPU.
---@return tide.Tensor
function Tensor:cpu() end

--- On the first CUDA device, or on one by number.
---@param n integer?
---@return tide.Tensor
function Tensor:cuda(n) end

--- What print shows.
---@return string
function Tensor:tostring() end

--- As f32.
---@return tide.Tensor
function Tensor:f32() end

--- As f64.
---@return tide.Tensor
function Tensor:f64() end

--- As f16.
---@return tide.Tensor
function Tensor:f16() end

--- As bf16.
---@return tide.Tensor
function Tensor:bf16() end

--- As i64.
---@return tide.Tensor
function Tensor:i64() end

--- As i32.
---@return tide.Tensor
function Tensor:i32() end

--- As u8.
---@return tide.Tensor
function Tensor:u8() end

--- As bool.
---@return tide.Tensor
function Tensor:bool() end

--- The transpose of a matrix, as a view.
---@return tide.Tensor
function Tensor:t() end

--- Makes the tensor want a gradient, or not.
---@param on boolean?   true
---@return tide.Tensor self
function Tensor:requires_grad_(on) end

--- Keeps .grad of a tensor that is no leaf.
---@return tide.Tensor self
function Tensor:retain_grad() end

--- Adds the gradient of this tensor to .grad of every leaf that it was computed from.
---@param seed tide.Tensor?   weight of each element; 1 for a tensor of one element
---@param opts table?         retain_graph, create_graph
function Tensor:backward(seed, opts) end

--- Copies the elements of another tensor into this one (broadcast, cast, from any device).
---@param from tide.Tensor
---@return tide.Tensor self
function Tensor:copy_(from) end

--- Makes every element one value.
---@param value number
---@return tide.Tensor self
function Tensor:fill_(value) end

--- Makes every element 0.
---@return tide.Tensor self
function Tensor:zero_() end

--- Fills with normal numbers.
---@param mean number?   0
---@param std number?    1
---@return tide.Tensor self
function Tensor:normal_(mean, std) end

--- Fills with uniform numbers.
---@param low number?    0
---@param high number?   1
---@return tide.Tensor self
function Tensor:uniform_(low, high) end

--- Whether |x - y| <= atol + rtol |y| everywhere.
---@param y tide.Tensor
---@param opts table?   rtol = 1e-5, atol = 1e-8
---@return boolean
function Tensor:allclose(y, opts) end

--- Whether shapes and all elements are equal.
---@param y tide.Tensor
---@return boolean
function Tensor:equal(y) end

--- Frees the memory at once, without waiting for the collector.
function Tensor:free() end

return M
