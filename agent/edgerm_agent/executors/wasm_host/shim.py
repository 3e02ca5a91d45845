"""Two small modules between a guest and the engine's WASI, in WebAssembly text.

The engine's `proc_exit` knows no code above 125, and its `path_open` lets one guest take every file descriptor of
the host. GUARD takes both calls over. The engine finds the guest's memory through whoever calls it, so `path_open`
goes through BRIDGE, which re-exports the guest's memory and is put into GUARD's table once the guest exists.
"""

from __future__ import annotations

FILES_MAX = 128
"""Files and folders that one task may hold open; then `path_open` answers `mfile` (errno 33)."""

WASI = "wasi_snapshot_preview1"
GUARDED = ("proc_exit", "path_open", "fd_close", "fd_renumber")
EXITED, EXIT_CODE, TABLE = "exited", "exit_code", "table"

GUARD = f"""
(module $edgerm
  (type $path_open (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "{WASI}" "fd_close" (func $close (param i32) (result i32)))
  (import "{WASI}" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
  (memory (export "memory") 0)
  (table (export "{TABLE}") 1 funcref)
  (global $open (mut i32) (i32.const 0))
  (global $exited (export "{EXITED}") (mut i32) (i32.const 0))
  (global $exit_code (export "{EXIT_CODE}") (mut i32) (i32.const 0))
  (func (export "proc_exit") (param i32)
    (global.set $exit_code (local.get 0))
    (global.set $exited (i32.const 1))
    unreachable)
  (func (export "path_open") (type $path_open) (local $errno i32)
    (if (i32.ge_s (global.get $open) (i32.const {FILES_MAX})) (then (return (i32.const 33))))
    (local.set $errno (call_indirect (type $path_open)
      (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4)
      (local.get 5) (local.get 6) (local.get 7) (local.get 8) (i32.const 0)))
    (if (i32.eqz (local.get $errno)) (then (global.set $open (i32.add (global.get $open) (i32.const 1)))))
    (local.get $errno))
  (func $closed (param $errno i32) (result i32)
    (if (i32.eqz (local.get $errno)) (then (global.set $open (i32.sub (global.get $open) (i32.const 1)))))
    (local.get $errno))
  (func (export "fd_close") (param i32) (result i32) (call $closed (call $close (local.get 0))))
  (func (export "fd_renumber") (param i32 i32) (result i32)
    (call $closed (call $renumber (local.get 0) (local.get 1)))))
"""

BRIDGE = f"""
(module $edgerm_bridge
  (type $path_open (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "{WASI}" "path_open" (func $path_open (type $path_open)))
  (import "guest" "memory" (memory 0))
  (import "guard" "{TABLE}" (table 1 funcref))
  (export "memory" (memory 0))
  (func $open (type $path_open)
    (call $path_open
      (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4)
      (local.get 5) (local.get 6) (local.get 7) (local.get 8)))
  (elem (i32.const 0) func $open))
"""
