// Shows the agent's own OpenAPI document. Nothing is loaded from anywhere else.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null, // the default would send the document's address to a public service
  tryItOutEnabled: true,
  persistAuthorization: false,
});
