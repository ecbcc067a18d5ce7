import { beforeEach } from "bun:test";

/** Loaded before all tests (bunfig.toml): a server opened in this process leaves its umask behind. */
beforeEach(() => {
  process.umask(0o022);
});
