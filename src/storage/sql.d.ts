/** SQL files are embedded as text at build time: `import sql from "./x.sql" with { type: "text" }`. */
declare module "*.sql" {
  const sql: string;
  export = sql;
}
