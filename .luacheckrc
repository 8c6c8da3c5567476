std = "lua54"
max_line_length = 140
local helpers = {"test_device", "sanitized", "no_leak_check", "fails_with", "assert_close", "build_dir", "tide_process", "by_definition",
  "image_cases"}
files["tests"] = {std = "+busted", globals = helpers, read_globals = {"assert"}}
files["tests/**/*_spec.lua"] = {std = "lua54+busted", globals = helpers}
files["tests/ref"] = {max_line_length = false}
exclude_files = {"lua/tide/**/*.d.lua", "lua/tide/*.d.lua", "tests/ref"} -- type files declare, they do not run
