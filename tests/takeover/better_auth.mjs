// Makes Better Auth's tables and two users in the database DATABASE_URL, and prints the users' ids.
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import pg from "pg";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
const options = {
  baseURL: "http://localhost:3000",
  secret: process.env.SECRET,
  database: pool,
  emailAndPassword: { enabled: true },
  telemetry: { enabled: false },
};
await (await getMigrations(options)).runMigrations();
const auth = betterAuth(options);
const ids = [];
for (const name of ["Ann", "Ben"]) {
  const body = { email: `${name}@example.org`, password: "correct horse battery", name };
  ids.push((await auth.api.signUpEmail({ body })).user.id);
}
await pool.end();
console.log(JSON.stringify(ids));
