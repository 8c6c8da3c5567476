--- Data: files, datasets, and loaders that give them in batches.
---@class tide.data
local datasets = require "tide.data.dataset"
local loader = require "tide.data.loader"

local M = {
  TensorDataset = datasets.TensorDataset,
  subset = datasets.subset,
  random_split = datasets.random_split,
  Loader = loader.Loader,
  is_loader = loader.is_loader,
}

--- Reads an IDX file, plain or compressed by gzip.
---@param path string
---@return tide.Tensor
function M.idx(path) return require "tide.data.idx"(path) end

--- Reads a CSV file as a dataset of rows: x (f32), and y where a target is named. Text in the target's column becomes
--- classes 1, 2, …, named in `classes`; the columns of x are named in `columns`.
---
---     local iris = data.csv("iris.csv", {target = "species"})
---@param path string
---@param opts table?   header = true, sep = ",", target, columns, missing: see tide.data.csv
---@return tide.data.TensorDataset
function M.csv(path, opts)
  local r = require "tide.data.csv".read(path, opts)
  local dataset = r.y and M.TensorDataset(r.x, r.y, {classes = r.classes}) or M.TensorDataset(r.x)
  dataset.x, dataset.y, dataset.columns = r.x, r.y, r.names
  return dataset
end

--- Fashion-MNIST: training and test images with their labels.
---@param opts table?   dir
---@return tide.data.TensorDataset train, tide.data.TensorDataset test
function M.fashion_mnist(opts) return require "tide.data.fashion".fashion_mnist(opts) end

--- MNIST's digits, from a directory.
---@param opts table   dir
---@return tide.data.TensorDataset train, tide.data.TensorDataset test
function M.mnist(opts) return require "tide.data.fashion".mnist(opts) end

--- A dataset that a Lua module reads, on a loader's workers, each in a Lua state of its own. The module returns a table with size()
--- and get(i), where samples count from 1, or a function that makes such a table of the options:
---
---     -- photos.lua
---     local tide = require "tide"
---     return function(options)
---       local names = {}
---       for name in io.lines(options.dir .. "/list.txt") do names[#names + 1] = name end
---       return {
---         size = function() return #names end,
---         get = function(i) return tide.load(options.dir .. "/" .. names[i]).image, i end,
---       }
---     end
---
---     local photos = data.module("photos", {dir = "/data/photos"})
---     for x, y in data.Loader(photos, {batch = 32, shuffle = true, workers = 4}):epoch() do … end
---@param name string   as for require
---@param options any   nil, booleans, numbers, strings, tensors and tables of them: they are copied to the workers
---@return tide.data.ModuleDataset
function M.module(name, options) return require "tide.data.module".module(name, options) end

--- A file as text for networks that predict the next character: its bytes as classes 1, 2, …
---
---     local text = data.text "book.txt"
---     local x, y = text:batch(32, 64)                    -- random pieces (32, 64), and the same one character later
---     print(text:decode(x[1]), #text, #text.vocabulary)
---@param path string
---@return tide.data.Text
function M.text(path) return require "tide.data.text".text(path) end

--- Transforms for loaders, loaded when they are first named.
return setmetatable(M, {__index = function(_, key)
  if key ~= "transforms" then return nil end
  M.transforms = require "tide.data.transforms"
  return M.transforms
end})
