std = "lua54"
max_line_length = 140
files["tests"] = {std = "+busted", globals = {"test_device", "sanitized", "fails_with", "assert_close"}, read_globals = {"assert"}}
files["tests/**/*_spec.lua"] = {std = "lua54+busted", globals = {"test_device", "sanitized", "fails_with", "assert_close"}}
