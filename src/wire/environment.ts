/**
 * Variables that redirect, trace or weaken connections, or load code, in this process or in a Bun child.
 * Compared without regard to case.
 */
const UNWANTED = new Set([
  "http_proxy",
  "https_proxy",
  "all_proxy",
  "no_proxy",
  "node_extra_ca_certs",
  "node_tls_reject_unauthorized",
  "node_use_system_ca",
  "node_use_env_proxy",
  "node_options",
  "ssl_cert_file",
  "ssl_cert_dir",
  "sslkeylogfile",
  "bun_config_verbose_fetch",
  "bun_options",
  "bun_inspect",
  "bun_inspect_connect_to",
  "bun_inspect_notify",
  "bun_be_bun",
]);

/**
 * Deletes from `env` what would change TLS, proxies or tracing; the first thing that `main` does.
 *
 * Proxies and `NODE_TLS_REJECT_UNAUTHORIZED` are read at each request, so that deleting them works. Certificate
 * files and `BUN_CONFIG_VERBOSE_FETCH` are read when the process starts: the transport passes `ca` and
 * `verbose: false` with each request, which override them. `BUN_BE_BUN`, `BUN_OPTIONS` and the loader's own
 * variables (`LD_PRELOAD`) have acted before any of our code runs.
 *
 * @returns What was removed, for the environment of a child program that keeps the user's settings.
 */
export function scrubEnvironment(env: Record<string, string | undefined>): Record<string, string> {
  const removed: Record<string, string> = {};
  for (const name of Object.keys(env)) {
    if (!UNWANTED.has(name.toLowerCase())) continue;
    const value = env[name];
    if (value !== undefined) removed[name] = value;
    delete env[name];
  }
  return removed;
}

/** What a process that we start for ourselves may need to know; nothing else, such as other programs' secrets. */
const PLAIN = new Set([
  "PATH",
  "HOME",
  "USER",
  "LOGNAME",
  "LANG",
  "LC_ALL",
  "TZ",
  "TMPDIR",
  "XDG_RUNTIME_DIR",
  "SYSTEMROOT",
  "USERPROFILE",
  "TEMP",
  "TMP",
]);

/** The environment of a long-lived process of our own: no variable of keyhold, of the loader, of Bun or of Node. */
export function plainEnvironment(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) =>
      value !== undefined && PLAIN.has(name.toUpperCase()) ? [[name, value]] : [],
    ),
  );
}
