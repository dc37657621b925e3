// An authorization server written by others, with mandatory DPoP nonces; argument 1 is its JWK Set, of which it
// signs with the first key. Prints its issuer identifier when it listens. Each line that it is given is another
// JWK Set, with which it goes on; it says so by a line. What it issued stays valid. It ends when its input does.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

const resource = 'https://api.example.com';
const opaque = 'https://api.example.com/opaque'; // the same API, for which it issues opaque tokens
const server = createServer();
const stored = new Map(); // what it issued, whatever its keys are

class Memory {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload) {
    stored.set(`${this.model} ${id}`, payload);
  }

  async find(id) {
    return stored.get(`${this.model} ${id}`);
  }

  async findByUid(uid) {
    return [...stored.values()].find((payload) => payload.uid === uid);
  }

  async consume(id) {
    stored.get(`${this.model} ${id}`).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    stored.delete(`${this.model} ${id}`);
  }

  async revokeByGrantId(grantId) {
    for (const [name, payload] of stored) if (payload.grantId === grantId) stored.delete(name);
  }
}

function serve(issuer, jwks) {
  const provider = new Provider(issuer, {
    adapter: Memory,
    clientDefaults: { id_token_signed_response_alg: 'ES256', introspection_signed_response_alg: 'ES256' },
    clients: [
      {
        client_id: 'machine',
        client_secret: 's3cret:/+',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: 'client_secret_basic',
      },
      {
        client_id: 'api',
        client_secret: 'of-the-api:/+',
        grant_types: [],
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: 'client_secret_basic',
      },
      {
        client_id: 'signing-api',
        grant_types: ['client_credentials'],
        jwks: JSON.parse(process.argv[3]),
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: 'private_key_jwt',
        token_endpoint_auth_signing_alg: 'ES256',
      },
      {
        client_id: 'app',
        application_type: 'native',
        dpop_bound_access_tokens: true,
        grant_types: ['authorization_code', 'refresh_token'],
        redirect_uris: ['http://127.0.0.1/callback'],
        response_types: ['code'],
        token_endpoint_auth_method: 'none',
      },
    ],
    cookies: { keys: ['for these tests'] },
    features: {
      clientCredentials: { enabled: true },
      dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => true },
      introspection: { enabled: true, allowedPolicy: (context, client) => client.clientId.endsWith('api') },
      jwtIntrospection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => resource,
        getResourceServerInfo: (context, indicator) => ({
          accessTokenFormat: indicator === opaque ? 'opaque' : 'jwt',
          audience: resource,
          jwt: { sign: { alg: 'ES256' } },
          scope: 'notes:read',
        }),
        useGrantedResource: () => true,
      },
    },
    findAccount: (context, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    issueRefreshToken: () => true,
    jwks,
    pkce: { required: () => true },
    scopes: ['openid', 'offline_access', 'notes:read'],
  });
  server.removeAllListeners('request');
  server.on('request', provider.callback());
}

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  serve(issuer, JSON.parse(process.argv[2]));
  console.log(issuer);
  const orders = createInterface({ input: process.stdin });
  orders.on('line', (line) => {
    serve(issuer, JSON.parse(line));
    console.log('serving');
  });
  orders.on('close', () => process.exit());
});
