-- The interpreter `tide`, run as a program: options, scripts, errors and exit status, commands, the interactive mode, Ctrl-C.
local tide = require "tide"

local function exists(path)
  local f = path and io.open(path, "rb")
  return f and f:close()
end

--- TIDE_BIN, or the program that runs this spec if that is tide, or the one of the build tree.
local function find_program()
  local p = assert(io.popen "readlink /proc/$PPID/exe")
  local own = p:read "l"
  p:close()
  for _, path in pairs {os.getenv "TIDE_BIN" or false, own and own:match "/tide$" and own or false, "build/bin/tide"} do
    if path and exists(path) then return path end
  end
end

local program = find_program()
local scratch = os.tmpname()

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

--- Runs a shell command in which $TIDE is the program; returns stdout, stderr, exit status.
local function shell(command)
  local err = scratch .. ".err"
  local p = assert(io.popen(("TIDE=%s OUT=%s; export TIDE; { %s\n} 2>%s; echo \" $?\"")
                           :format(quote(program), quote(scratch .. ".out"), command, quote(err))))
  local out = p:read "a"
  p:close()
  local f = assert(io.open(err))
  local message = f:read "a"
  f:close()
  os.remove(err)
  local text, status = out:match "^(.*) (%d+)\n$"
  return text, message, tonumber(status)
end

--- Runs the program on a script of that text.
local function script(text, arguments)
  local f = assert(io.open(scratch, "w"))
  f:write(text)
  f:close()
  return shell(("\"$TIDE\" %s %s"):format(quote(scratch), arguments or ""))
end

local function code(text, arguments) return shell(("\"$TIDE\" -e %s %s"):format(quote(text), arguments or "")) end

describe("the interpreter", function()
  if not program then
    it("is built", function() pending "no program `tide` is found: set TIDE_BIN" end)
    return
  end
  teardown(function() os.remove(scratch) end)

  it("says its version and its options", function()
    local out, err, status, _ = shell '"$TIDE" --version'
    assert.same({("Tide %s (Lua 5.4.%s)\n"):format(tide.version, out:match "5%.4%.(%d+)"), "", 0}, {out, err, status})
    out, _, status = shell '"$TIDE" --help'
    assert.matches("^usage: tide", out)
    assert.equal(0, status)
    _, err, status = shell '"$TIDE" --nonsense'
    assert.matches("unknown option '%-%-nonsense'", err)
    assert.equal(2, status)
    _, err, status = shell '"$TIDE" -e'
    assert.matches("'%-e' needs an argument", err)
    assert.equal(2, status)
  end)

  it("runs a script with its arguments", function()
    local out, err, status = script("print(#arg, arg[0], ...)", "a 'b c'")
    assert.same({("2\t%s\ta\tb c\n"):format(scratch), "", 0}, {out, err, status})
  end)

  it("runs the standard input", function()
    assert.equal("hello x\n", (shell 'echo "print([[hello]] .. [[ ]] .. ...)" | "$TIDE" - x'))
    assert.equal("hello\n", (shell 'echo "print([[hello]])" | "$TIDE"'))
  end)

  it("runs code, with tide and its parts as globals that load when they are named", function()
    assert.equal("3.0\n", (code "print((tide.ones(2) + 0.5):sum():item())"))
    assert.equal("true\n", (code "print(nn == tide.nn and optim == require('tide').optim)"))
    assert.equal("nil\tfalse\n", (code "print(undefined, package.loaded.tide ~= nil)"))
    assert.equal("nil\n", (script "print(tide)"))
    assert.equal("1 2\n", (shell [["$TIDE" -e 'x = 1' -e 'print(x .. " 2")']]))
    assert.equal("table\n", (shell [["$TIDE" -l tide -e 'print(type(tide))']]))
  end)

  it("prints an uncaught error with a traceback, and fails", function()
    local out, err, status, _ = script "local function f() error 'boom' end\nprint 'before'\nf()"
    assert.equal("before\n", out)
    assert.matches(":1: boom\nstack traceback:", err)
    assert.matches(":3: in main chunk", err)
    assert.equal(1, status)
    _, err, status = script "error(setmetatable({}, {__tostring = function() return 'an object' end}))"
    assert.matches("an object", err)
    assert.equal(1, status)
    _, err, status = script "error({})"
    assert.matches("the error is a table", err)
    assert.equal(1, status)
    _, err, status = script "x = = 1"
    assert.matches(":1: unexpected symbol", err)
    assert.equal(1, status)
    _, err, status = shell '"$TIDE" /no/such/script.lua'
    assert.matches("no/such/script.lua", err)
    assert.equal(1, status)
  end)

  it("names the script's line where a tensor is misused", function()
    local _, err = script "local tide = require 'tide'\n\nlocal x = tide.ones(2) + tide.ones(3)"
    assert.matches(":3: add: ", err)
  end)

  it("leaves with the status that a script asks for", function()
    assert.equal(7, select(3, script "os.exit(7)"))
    assert.equal(0, select(3, script "os.exit(true, true)"))
  end)

  it("keeps what LUA_PATH says in front", function()
    local out = shell [[LUA_PATH='/first/?.lua;;' "$TIDE" -e 'print(package.path)']]
    assert.matches("^/first/%?%.lua;", out)
    assert.matches("share/lua/5.4/%?%.lua", out)
    assert.equal("table\n", (shell [[LUA_PATH='/first/?.lua' "$TIDE" -e 'print(type(require "tide"))']]))
  end)

  it("has commands", function()
    assert.matches("linear +[%d.]+ +%a+ +layer:Linear", (shell '"$TIDE" plugins'))
    assert.matches("cpu", (shell '"$TIDE" devices'))
    assert.matches("in_features", (shell '"$TIDE" help Linear'))
    assert.not_equal(0, select(3, shell '"$TIDE" help NoSuchThing'))
  end)

  it("is interactive without a terminal, too", function()
    local lines = [[x = 1\nx + 1, "a"\nfor i = 1, 2 do\nprint(i)\nend\nerror "e"\n= {1, {2}, k = "v"}\n]]
    local out, err, status = shell(("printf '%s' | \"$TIDE\" -i"):format(lines))
    assert.equal('2\ta\n1\n2\n{1, {2}, k = "v"}\n', out)
    assert.matches("stdin:1: e", err)
    assert.equal(0, status)
    out = shell [[printf 'tide.ones(2)\nlocal a <const> = 1; return a\n' | "$TIDE" -i]]
    assert.equal("{1, 1}\n[f32 (2) cpu]\n1\n", out)
  end)

  it("turns Ctrl-C into an error that pcall catches", function()
    local out, _, status = script([[
      io.stdout:setvbuf "no"
      print "ready"
      print(pcall(function() while true do end end))
      local x = require "tide".ones(400, 400)
      print(pcall(coroutine.wrap(function() while true do x:matmul(x) end end)))
      print((x + 1).shape ~= nil)]], [[>"$OUT" & p=$!
      waits() { i=0; while [ "$(wc -l <"$OUT")" -lt "$1" ] && [ $i -lt 200 ]; do sleep 0.05; i=$((i+1)); done; }
      waits 1; sleep 0.1; kill -INT $p; waits 2; sleep 0.1; kill -INT $p; wait $p; s=$?; cat "$OUT"; rm "$OUT"; (exit $s)]])
    assert.equal(0, status)
    assert.matches("^ready\nfalse\t[^\n]*:3: interrupted\nfalse\t[^\n]*:5: interrupted\ntrue\n$", out)
  end)

  it("ends at a second Ctrl-C", function()
    local _, _, status = script([[string.find(("a"):rep(60), (".-"):rep(20) .. "b")]],
                                "& p=$!; sleep 0.5; kill -INT $p; sleep 0.2; kill -INT $p; wait $p")
    assert.equal(130, status)
  end)
end)
