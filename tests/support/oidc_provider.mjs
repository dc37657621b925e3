// An authorization server written by others, with mandatory DPoP nonces; argument 1 is its signing JWK.
// Prints its issuer identifier when it listens.
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const resource = 'https://api.example.com';
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'machine',
        client_secret: 's3cret:/+',
        grant_types: ['client_credentials'],
        id_token_signed_response_alg: 'ES256',
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: 'client_secret_basic',
      },
      {
        client_id: 'app',
        application_type: 'native',
        dpop_bound_access_tokens: true,
        grant_types: ['authorization_code', 'refresh_token'],
        id_token_signed_response_alg: 'ES256',
        redirect_uris: ['http://127.0.0.1/callback'],
        response_types: ['code'],
        token_endpoint_auth_method: 'none',
      },
    ],
    cookies: { keys: ['for these tests'] },
    features: {
      clientCredentials: { enabled: true },
      dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => resource,
        getResourceServerInfo: () => ({
          accessTokenFormat: 'jwt',
          audience: resource,
          jwt: { sign: { alg: 'ES256' } },
          scope: 'notes:read',
        }),
        useGrantedResource: () => true,
      },
    },
    findAccount: (context, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    issueRefreshToken: () => true,
    jwks: { keys: [JSON.parse(process.argv[2])] },
    pkce: { required: () => true },
    scopes: ['openid', 'offline_access', 'notes:read'],
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
